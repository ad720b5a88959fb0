"""Optimizers and schedules that torch scripts use beyond torch.optim, with their numbers."""

from ._adabelief import AdaBelief as AdaBelief
from ._adabelief import adabelief as adabelief
from ._adafactor import Adafactor as Adafactor
from ._adafactor import adafactor as adafactor
from ._adafactor_big_vision import AdafactorBigVision as AdafactorBigVision
from ._adafactor_big_vision import adafactor_big_vision as adafactor_big_vision
from ._adam8bit import Adam8bit as Adam8bit
from ._adam8bit import adam8bit as adam8bit
from ._adamw8bit import AdamW8bit as AdamW8bit
from ._adamw8bit import adamw8bit as adamw8bit
from ._adamw_schedule_free import AdamWScheduleFree as AdamWScheduleFree
from ._adamw_schedule_free import adamw_schedule_free as adamw_schedule_free
from ._adan import Adan as Adan
from ._adan import adan as adan
from ._ademamix import AdEMAMix as AdEMAMix
from ._ademamix import ademamix as ademamix
from ._adopt import Adopt as Adopt
from ._adopt import adopt as adopt
from ._came import CAME as CAME
from ._came import came as came
from ._dadapt_adagrad import DAdaptAdaGrad as DAdaptAdaGrad
from ._dadapt_adagrad import dadapt_adagrad as dadapt_adagrad
from ._dadapt_adam import DAdaptAdam as DAdaptAdam
from ._dadapt_adam import dadapt_adam as dadapt_adam
from ._dadapt_adan import DAdaptAdan as DAdaptAdan
from ._dadapt_adan import dadapt_adan as dadapt_adan
from ._dadapt_lion import DAdaptLion as DAdaptLion
from ._dadapt_lion import dadapt_lion as dadapt_lion
from ._dadapt_sgd import DAdaptSGD as DAdaptSGD
from ._dadapt_sgd import dadapt_sgd as dadapt_sgd
from ._detectron2 import LRMultiplier as LRMultiplier
from ._detectron2 import WarmupCosineLR as WarmupCosineLR
from ._detectron2 import WarmupMultiStepLR as WarmupMultiStepLR
from ._hugging_face import get_constant_schedule as get_constant_schedule
from ._hugging_face import get_constant_schedule_with_warmup as get_constant_schedule_with_warmup
from ._hugging_face import get_cosine_schedule_with_warmup as get_cosine_schedule_with_warmup
from ._hugging_face import (
    get_cosine_with_hard_restarts_schedule_with_warmup as get_cosine_with_hard_restarts_schedule_with_warmup,  # noqa: E501
)
from ._hugging_face import (
    get_cosine_with_min_lr_schedule_with_warmup as get_cosine_with_min_lr_schedule_with_warmup,
)
from ._hugging_face import (
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate as get_cosine_with_min_lr_schedule_with_warmup_lr_rate,  # noqa: E501
)
from ._hugging_face import get_inverse_sqrt_schedule as get_inverse_sqrt_schedule
from ._hugging_face import get_linear_schedule_with_warmup as get_linear_schedule_with_warmup
from ._hugging_face import (
    get_polynomial_decay_schedule_with_warmup as get_polynomial_decay_schedule_with_warmup,
)
from ._hugging_face import get_scheduler as get_scheduler
from ._hugging_face import get_wsd_schedule as get_wsd_schedule
from ._kron import Kron as Kron
from ._kron import kron as kron
from ._lamb import Lamb as Lamb
from ._lamb import lamb as lamb
from ._laprop import LaProp as LaProp
from ._laprop import laprop as laprop
from ._lars import Lars as Lars
from ._lars import lars as lars
from ._lion import Lion as Lion
from ._lion import lion as lion
from ._lookahead import LookaheadState as LookaheadState
from ._lookahead import lookahead as lookahead
from ._madgrad import MADGRAD as MADGRAD
from ._madgrad import madgrad as madgrad
from ._mars import Mars as Mars
from ._mars import mars as mars
from ._muon import Muon as Muon
from ._muon import muon as muon
from ._mup import param_groups_mup as param_groups_mup
from ._nadamw import NAdamW as NAdamW
from ._nadamw import nadamw as nadamw
from ._noam import InverseSquareRootSchedule as InverseSquareRootSchedule
from ._noam import get_noam_schedule as get_noam_schedule
from ._param_groups import param_groups_decay_names as param_groups_decay_names
from ._param_groups import param_groups_layer_decay as param_groups_layer_decay
from ._param_groups import param_groups_weight_decay as param_groups_weight_decay
from ._param_schedulers import CosineParamScheduler as CosineParamScheduler
from ._param_schedulers import MultiStepParamScheduler as MultiStepParamScheduler
from ._param_schedulers import WarmupParamScheduler as WarmupParamScheduler
from ._prodigy import Prodigy as Prodigy
from ._prodigy import prodigy as prodigy
from ._radam_schedule_free import RAdamScheduleFree as RAdamScheduleFree
from ._radam_schedule_free import radam_schedule_free as radam_schedule_free
from ._reference import Reference as Reference
from ._references import REFERENCES as REFERENCES
from ._references import reference_named as reference_named
from ._references import reference_of as reference_of
from ._references import references_of as references_of
from ._rmsprop_tf import RMSpropTF as RMSpropTF
from ._rmsprop_tf import rmsprop_tf as rmsprop_tf
from ._sam import sam as sam
from ._sam import sam_perturbed as sam_perturbed
from ._schedule_free import schedule_free_eval_params as schedule_free_eval_params
from ._schedule_free import schedule_free_train_params as schedule_free_train_params
from ._sgd_schedule_free import SGDScheduleFree as SGDScheduleFree
from ._sgd_schedule_free import sgd_schedule_free as sgd_schedule_free
from ._sgdw import SGDW as SGDW
from ._sgdw import sgdw as sgdw
from ._soap import SOAP as SOAP
from ._soap import soap as soap
from ._timm_plateau import PlateauLRScheduler as PlateauLRScheduler
from ._timm_schedules import CosineLRScheduler as CosineLRScheduler
from ._timm_schedules import MultiStepLRScheduler as MultiStepLRScheduler
from ._timm_schedules import PolyLRScheduler as PolyLRScheduler
from ._timm_schedules import StepLRScheduler as StepLRScheduler
from ._timm_schedules import TanhLRScheduler as TanhLRScheduler
from ._timm_wsd import WSDLRScheduler as WSDLRScheduler
