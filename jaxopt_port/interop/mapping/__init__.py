"""Which leaf of a JAX tree is which tensor of torch's, and in what layout."""

from ._layer_differences import LayerDifferenceWarning as LayerDifferenceWarning
from ._layout import Layout as Layout
from ._mapping import map_of_tensors as map_of_tensors
from ._mapping import param_map as param_map
from ._param_map import Entry as Entry
from ._param_map import ParamMap as ParamMap
from ._param_map import by_tensor as by_tensor
from ._param_map import check_is_map as check_is_map
from ._params import params_from_torch as params_from_torch
from ._params import params_to_torch as params_to_torch
from ._rules_by_hand import Layouts as Layouts
from ._rules_by_hand import Rename as Rename
from ._torch_tensors import COUNTER as COUNTER
from ._torch_tensors import TorchTensor as TorchTensor
from ._torch_tensors import kind_of as kind_of
from ._torch_tensors import kind_of_bases as kind_of_bases
from ._torch_tensors import unwrapped as unwrapped
