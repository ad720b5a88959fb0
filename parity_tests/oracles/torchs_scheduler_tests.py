"""Torch's own tests of its schedulers and averages by name, and where each is held here.

The names are those of ``test/optim/test_lrscheduler.py`` (pytorch/pytorch, commit 01f9ef32) and
``test/optim/test_swa_utils.py`` (045a976c). Each has one place: rows of `CASES`, a test, or a
reason.
"""

from __future__ import annotations

# torch's test: the rows of CASES that compare what it is about with torch itself.
ROWS: dict[str, tuple[str, ...]] = {
    "test_step_lr": ("step docs",),
    "test_get_last_lr_step_lr": ("step docs",),
    "test_multi_step_lr": ("multistep docs",),
    "test_get_last_lr_multi_step_lr": ("multistep docs",),
    "test_constantlr": ("constant docs",),
    "test_get_last_lr_constantlr": ("constant docs",),
    "test_linearlr": ("linear docs",),
    "test_get_last_lr_linearlr": ("linear docs",),
    "test_exp_lr": ("exponential docs",),
    "test_poly_lr": ("polynomial root",),
    "test_cos_anneal_lr": ("cosine floor",),
    "test_lambda_lr": ("lambda docs",),
    "test_multiplicative_lr": ("multiplicative list",),
    "test_CosineAnnealingWarmRestarts_lr1": (
        "restarts docs", "restarts doubling", "restarts tripling",
    ),
    "test_CosineAnnealingWarmRestarts_lr2": (
        "restarts fractions", "restarts fractions doubling", "restarts fractions tripling",
    ),
    "test_CosineAnnealingWarmRestarts_lr3": (
        "restarts to and fro", "restarts to and fro doubling",
    ),
    # What torch compares in these two ways never moves: its rates are those of another optimizer.
    "test_closed_form_step_lr": ("epoch step", "step docs"),
    "test_closed_form_multi_step_lr": ("epoch multistep", "multistep docs"),
    "test_closed_form_constantlr": ("epoch constant", "constant docs"),
    "test_closed_form_linearlr": ("epoch linear", "linear docs"),
    "test_closed_form_exp_lr": ("epoch exponential", "exponential docs"),
    "test_closed_form_poly_lr": ("epoch polynomial", "polynomial root"),
    "test_closed_form_cos_anneal_lr": ("epoch cosine", "cosine floor"),
    "test_multi_step_lr_with_epoch": ("epoch multistep",),
    "test_constantlr_with_epoch": ("epoch constant",),
    "test_linearlr_with_epoch": ("epoch linear",),
    "test_reduce_lr_on_plateau1": ("plateau min abs", "plateau cooldown"),
    "test_reduce_lr_on_plateau2": ("plateau min abs",),
    "test_reduce_lr_on_plateau3": ("plateau max abs",),
    "test_reduce_lr_on_plateau4": ("plateau max",),
    "test_reduce_lr_on_plateau5": ("plateau max", "plateau cooldown"),
    "test_reduce_lr_on_plateau6": ("plateau threshold",),
    "test_reduce_lr_on_plateau7": ("plateau cooldown",),
    "test_reduce_lr_on_plateau8": ("plateau min_lrs",),
    "test_reduce_lr_on_plateau_get_last_lr_before_step": ("plateau docs",),
    # A rate that is a tensor stays one in torch; here a state keeps its structure and dtypes.
    "test_reduce_lr_on_plateau_preserves_lr_type": ("plateau docs",),
    "test_sequentiallr1": ("sequential multiplicative",),
    "test_sequentiallr2": ("sequential docs",),
    "test_sequentiallr3": ("sequential three",),
    "test_sequentiallr4": ("sequential constants",),
    "test_sequentiallr5": ("chained in sequential",),
    "test_get_last_lr_sequentiallr": ("sequential three",),
    "test_chained_lr1": ("chained one",),
    "test_chained_lr2": ("chained",),
    "test_chained_lr3": ("chained",),
    "test_chained_lr4": ("chained three",),
    "test_chained_lr5": ("chained polynomial",),
    "test_chained_lr2_get_last_lr_before_step": ("chained",),
    "test_cycle_lr_triangular_mode_one_lr": ("cyclic momentum",),
    "test_cycle_lr_triangular_mode_one_lr_no_momentum": ("cyclic no momentum",),
    "test_cycle_lr_triangular2_mode_one_lr": ("cyclic triangular2",),
    "test_cycle_lr_exp_range_mode_one_lr": ("cyclic exp_range",),
    "test_cycle_lr_triangular_mode": ("cyclic lists",),
    "test_cycle_lr_triangular2_mode": ("cyclic steep lists",),
    "test_cycle_lr_exp_range_mode": ("cyclic beta1 lists",),
    "test_cycle_lr_triangular_mode_step_size_up_down": ("cyclic down",),
    "test_cycle_lr_triangular2_mode_step_size_up_down": ("cyclic steep lists",),
    "test_cycle_lr_exp_range_mode_step_size_up_down": ("cyclic exp_range down",),
    "test_cycle_lr_with_momentumless_optimizer": ("cyclic beta1 no momentum",),
    "test_cycle_lr_with_adam": ("onecycle beta1",),
    "test_onecycle_lr_linear_annealing": ("onecycle linear",),
    "test_onecycle_lr_linear_annealing_three_phases": ("onecycle three linear",),
    "test_onecycle_lr_cosine_annealing": ("onecycle",),
}  # fmt: skip

_OWN = "lr_scheduler.test_torchs_own_tests::"
_STATES = "lr_scheduler.test_torchs_own_states::"
_BAD = "lr_scheduler.test_lr_scheduler_errors::test_bad_arguments_get_torchs_error"
_SAVED = f"{_STATES}test_a_state_dict_is_for_the_arguments_it_was_saved_with"
_AVERAGES = "loops.test_swa_utils::"

# torch's test: the tests that hold it, and which of their cases.
TESTS: dict[str, tuple[str, ...]] = {
    # torch's own five of plateaus compare nothing: their list of targets is empty.
    **{
        f"test_compound_{theirs}": (f"{_OWN}test_several_in_turn[{ours}]",)
        for theirs, ours in {
            "step_and_multistep_lr": "step and milestones",
            "step_and_exp_lr": "step and exponential",
            "exp_and_multistep_lr": "milestones and exponential",
            "exp_and_linearlr": "line and exponential",
            "step_and_constantlr": "step and constant",
            "linearlr_and_multistep_lr": "milestones and line",
            "cosanneal_and_step_lr": "cosine and step",
            "cosanneal_and_multistep_lr": "cosine and milestones",
            "cosanneal_and_linearlr": "line and cosine",
            "cosanneal_and_exp_lr": "cosine and exponential",
            "reduce_lr_on_plateau1": "a plateau that improves, and step",
            "reduce_lr_on_plateau2": "a plateau that stalls, and milestones",
            "reduce_lr_on_plateau3": "a plateau below its eps, and exponential",
            "reduce_lr_on_plateau4": "a plateau that improves, and cosine",
            "reduce_lr_on_plateau5": "a plateau that stalls, and line",
        }.items()
    },
    **{
        f"test_swalr_{theirs}": (f"{_OWN}test_averaging_after_five_steps[{ours}]",)
        for theirs, ours in {
            "no_anneal": "at once",
            "cosine_anneal_after_multiplicative": "cosine",
            "linear_anneal_after_multiplicative": "linear",
        }.items()
    },
    "test_sequentiallr_does_not_alias_lr_and_initial_lr": (
        f"{_STATES}test_initial_rates_stay[sequential]",
    ),
    **{
        f"test_{theirs}_is_constant_for_constant_epoch": (
            f"{_OWN}test_the_same_epoch_has_the_same_rate[{ours}]",
        )
        for theirs, ours in {
            "step_lr": "step",
            "exponential_lr": "exponential",
            "constantlr": "constant",
            "linear_linearlr": "linear",
            "polynomial_lr": "polynomial",
        }.items()
    },
    **dict.fromkeys(
        ("test_old_pattern_warning", "test_old_pattern_warning_with_arg"),
        (f"{_OWN}test_a_scheduler_before_the_optimizer[step]",),
    ),
    **dict.fromkeys(
        ("test_old_pattern_warning_resuming", "test_old_pattern_warning_resuming_with_arg"),
        (f"{_OWN}test_a_scheduler_before_the_optimizer[resumed]",),
    ),
    **dict.fromkeys(
        ("test_new_pattern_no_warning", "test_new_pattern_no_warning_with_arg"),
        (f"{_OWN}test_a_scheduler_after_the_optimizer[step]",),
    ),
    "test_sequentiallr_no_warnings": (
        f"{_OWN}test_a_scheduler_after_the_optimizer[line, then exponential]",
    ),
    "test_raise_error_when_last_epoch_is_greater_than_0_and_initial_lr_is_not_specified": (
        f"{_BAD}[resumed]",
    ),
    "test_linearlr_start_factor_limits1": (f"{_BAD}[linear start]",),
    "test_linearlr_start_factor_limits2": (f"{_BAD}[linear start above one]",),
    "test_cycle_lr_invalid_mode": (f"{_BAD}[cyclic mode]",),
    "test_onecycle_lr_invalid_anneal_strategy": (f"{_BAD}[onecycle strategy]",),
    "test_onecycle_lr_invalid_pct_start": (f"{_BAD}[onecycle pct]",),
    "test_onecycle_lr_cannot_calculate_total_steps": (f"{_BAD}[onecycle nothing]",),
    "test_multiplicative_lr_with_lr_lambda": (
        f"{_BAD}[multiplicative no function]",
        f"{_BAD}[multiplicative no functions]",
    ),
    "test_swalr_hypers": tuple(
        f"{_BAD}[swa {what}]" for what in ("strategy", "epochs", "half an epoch", "list")
    ),
    "test_cycle_lr_cycle_momentum_fail_with_momentumless_optimizer": (
        f"{_OWN}test_momentum_that_is_not_there",
    ),
    "test_cycle_lr_cycle_momentum_with_beta1_optimizer": (
        f"{_OWN}test_momentum_that_is_not_there",
    ),
    "test_cos_anneal_lr_continue": (f"{_OWN}test_a_cosine_goes_on_from_the_first_epoch",),
    "test_cosine_then_cyclic": (f"{_OWN}test_a_cosine_and_then_a_cycle",),
    "test_CosineAnnealingWarmRestarts_T_cur_reset": (
        f"{_OWN}test_a_period_that_was_overrun_is_begun_again",
    ),
    # ── state dicts; torch takes over other arguments, which are refused here ──
    "test_lr_scheduler_state_dict_load": (f"{_STATES}test_a_state_dict_is_pickled_and_loaded",),
    "test_step_lr_state_dict": (f"{_SAVED}[step]",),
    "test_multi_step_lr_state_dict": (f"{_SAVED}[multistep]",),
    "test_exp_step_lr_state_dict": (f"{_SAVED}[exponential]",),
    "test_cosine_lr_state_dict": (f"{_SAVED}[cosine]",),
    "test_reduce_lr_on_plateau_state_dict": (f"{_SAVED}[plateau]",),
    "test_lambda_lr_state_dict_fn": (
        f"{_STATES}test_a_state_dict_is_pickled_and_loaded[lambda]",
        "lr_scheduler.test_lr_scheduler::test_bits_and_state_dict_of_torch[lambda one]",
    ),
    "test_lambda_lr_state_dict_obj": (f"{_SAVED}[lambda object]",),
    "test_CosineAnnealingWarmRestarts_lr_state_dict": (f"{_SAVED}[restarts]",),
    "test_swa_lr_state_dict": (f"{_SAVED}[swa]",),
    "test_cycle_lr_scale_fn_restored_from_state_dict": (
        f"{_SAVED}[cyclic]",
        f"{_STATES}test_a_state_dict_is_pickled_and_loaded[cyclic own]",
    ),
    "test_cycle_lr_state_dict_picklable": tuple(
        f"lr_scheduler.test_lr_scheduler::test_bits_and_state_dict_of_torch[{case}]"
        for case in ("cyclic docs", "cyclic scale cycle", "cyclic scale object")
    ),
    "test_onecycle_lr_legacy_state_dict": (f"{_STATES}test_a_one_cycles_dict_of_an_earlier_torch",),
    "test_lr_scheduler_checkpoint": (f"{_STATES}test_a_checkpoint_goes_on_at_its_rate",),
    "test_lr_scheduler_checkpoint_on_plateau": (
        f"{_STATES}test_a_plateaus_checkpoint_goes_on_at_its_rate",
    ),
    # ── what was given is the scheduler's own from then on ──
    "test_constant_initial_lr": (f"{_STATES}test_initial_rates_stay",),
    "test_constant_initial_params_cyclelr": (
        f"{_STATES}test_what_was_given_may_be_filled[cyclic]",
    ),
    "test_constant_initial_params_onecyclelr": (
        f"{_STATES}test_what_was_given_may_be_filled[onecycle]",
    ),
    "test_constant_initial_params_swalr": (f"{_STATES}test_what_was_given_may_be_filled[swa]",),
    # ── groups that join ──
    "test_add_param_group_does_not_break_reduce_lr_on_plateau": (
        f"{_OWN}test_groups_that_join_a_plateau[a floor]",
        f"{_OWN}test_groups_that_join_a_plateau[floors]",
    ),
    "test_add_param_group_errors_reduce_lr_on_plateau": (
        f"{_OWN}test_a_plateau_of_listed_floors_and_one_more_group",
    ),
    # ── averages ──
    "test_averaged_model_all_devices": (
        f"{_AVERAGES}test_averages[multi swa-float32-False]",
        f"{_AVERAGES}test_averages[multi ema-float32-False]",
    ),
    "test_averaged_model_exponential": tuple(
        f"{_AVERAGES}test_averages[{kind}-float32-{buffers}]"
        for kind in ("ema", "multi ema")
        for buffers in (False, True)
    ),
    "test_averaged_model_state_dict": (f"{_AVERAGES}test_an_average_is_pickled_and_goes_on",),
    "test_averaged_model_default_avg_fn_picklable": (
        f"{_AVERAGES}test_an_average_is_pickled_and_goes_on",
    ),
    "test_update_bn_dnn": (f"{_AVERAGES}test_update_bn_with_torchs_variance",),
    "test_update_bn_cnn": (f"{_AVERAGES}test_update_bn_against_torch",),
    "test_bn_update_eval_momentum": (f"{_AVERAGES}test_update_bn_against_torch",),
}

_OBJECTS = "a scheduler holds no optimizer and no method of one: there is no cycle to collect"
_OVERRIDDEN = "an optimizer is a frozen object, whose methods nobody replaces"

LEFT_OUT = {
    "test_no_cyclic_references": _OBJECTS,
    "test_no_cyclic_references_in_step": _OBJECTS,
    "test_cycle_lr_removed_after_out_of_scope": _OBJECTS,
    "test_old_pattern_warning_with_overridden_optim_step": _OVERRIDDEN,
    "test_new_pattern_no_warning_with_overridden_optim_step": _OVERRIDDEN,
    "test_error_when_getlr_has_epoch": (
        "a schedule of one's own is a function given to LambdaLR, not a subclass with a get_lr"
    ),
    "test_averaged_model_mixed_device": "of a CUDA device; averages lie where the parameters lie",
}
