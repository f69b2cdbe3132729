"""What other libraries call the settings of an optimizer, and which of them are not here."""

from __future__ import annotations

from .suggest import rows, suggest

MEANT = {
    "alpha": "decay or lr",
    "base_lr": "lr",
    "eta": "lr",
    "eta0": "lr",
    "init_lr": "lr",
    "initial_lr": "lr",
    "learn_rate": "lr",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "step_size": "lr",
    "b1": "decay1",
    "b2": "decay2",
    "beta": "momentum or decay or decay1 and decay2",
    "beta1": "decay1",
    "beta2": "decay2 or decay",
    "betas": "decay1 and decay2",
    "decay": "decay1 or decay2",
    "decay_rate": "decay",
    "momentum": "decay1",
    "mu": "momentum or decay1",
    "rho": "decay or decay2",
    "smoothing_constant": "decay",
    "etas": "down and up",
    "step_sizes": "least and most",
    "delta": "eps",
    "epsilon": "eps",
    "initial_accumulator_value": "initial",
    "fuzz": "eps",
    "clip": "clip_norm or clip_value",
    "clipnorm": "clip_norm",
    "clip_gradient_norm": "clip_norm",
    "clip_grad_value": "clip_value",
    "clipvalue": "clip_value",
    "grad_clip_value": "clip_value",
    "grad_clip": "clip_norm or clip_value",
    "grad_clip_norm": "clip_norm",
    "learning_rate_schedule": "lr_scheduler",
    "learning_rate_scheduler": "lr_scheduler",
    "lr_policy": "lr_scheduler",
    "lr_schedule": "lr_scheduler",
    "schedule": "lr_scheduler",
    "scheduler": "lr_scheduler",
    "error_if_nonfinite": "nonfinite",
    "skip_nonfinite": "nonfinite",
    "fp32_master": "master",
    "master_weights": "master",
    "use_master_weights": "master",
    "stochastic_rounding": "rounding",
    "wd": "weight_decay",
    "weight_decay_rate": "weight_decay",
    "lambd": "weight_decay or l2",
    "lambda": "weight_decay or l2",
    "penalty": "weight_decay or l2",
    "regularization": "weight_decay or l2",
    "l2_penalty": "l2",
    "l2_reg": "l2",
    "l2_regularization": "l2",
    "random_seed": "seed",
    "random_state": "seed",
    "rng": "seed",
}
"""The keywords that mean the same here, for `suggest`."""

ABSENT = {
    **rows(
        "l1 l1_reg l1_regularization",
        "there is no L1 penalty here: FTRL has one, or add its gradient to the gradient, l1 * sign(param)",
    ),
    **rows("nesterov use_nesterov", "there is no Nesterov momentum here: SGD has it, and NAdam is Adam with it"),
    **rows("decoupled_weight_decay", "weight_decay is always decoupled; l2 is the weight of a penalty in the gradient"),
    **rows("amsgrad", "AMSGrad is a class of its own, AMSGrad(lr=...)"),
    **rows("centered", "there is no centred form here: RMSProp has one"),
    **rows("dampening", "nothing is dampened here, a gradient counts in full: SGD has it"),
    **rows("momentum", "this rule has no momentum: SGD and RMSProp have"),
    **rows("momentum_decay", "a momentum stays as it is set: give it a schedule, such as linear; and NAdam's grows"),
    **rows("eps_root", "eps is added outside the root, and nothing inside"),
    **rows("bias_correction correct_bias", "whether means are corrected for their bias is part of the rule"),
    **rows("initial_accumulator_value", "state starts at 0 here; set_params(cache_dict=...) gives it other values"),
    **rows(
        "decay gamma lr_decay lr_decay_rate learning_rate_decay decay_steps warmup warmup_steps total_steps "
        "num_training_steps T_max",
        "a learning rate that changes is a schedule: give one as lr, such as lr=cosine(0.1, steps=1000)",
    ),
    **rows(
        "max_norm max_grad_norm clip_grad_norm global_clipnorm global_norm gradient_clip_val",
        "clip_norm bounds the norm of each parameter's gradient alone: for that of all together there is clip_global, "
        "and clipping.clip_by_global_norm(grads, max_norm) before the update",
    ),
    **rows(
        "foreach fused capturable jit jit_compile compile use_cuda use_gpu",
        "how updates run is no setting of an optimizer: see its explain, and engine()",
    ),
    **rows("differentiable", "an update records no gradients of its own"),
    **rows("device dtype mu_dtype accumulator_dtype", "state goes where its parameter is, in its compute dtype"),
    **rows(
        "params param parameters parameter_list param_groups model model_parameters var_list variables weights",
        "an optimizer holds no parameters here: give them to update_all(params, grads)",
    ),
    **rows("grads gradients", "an optimizer holds no gradients here: give them to update_all(params, grads)"),
    **rows("name", "an optimizer has no name here: parameters have"),
    **rows(
        "use_ema ema_momentum ema_decay ema_overwrite_frequency polyak_decay",
        "no average of parameters is kept here: keep it beside the optimizer",
    ),
    **rows(
        "loss_scale loss_scale_factor grad_scale grad_scaler rescale_grad gradient_accumulation_steps",
        "gradients are taken as they come: scale or add them up before the update",
    ),
}
"""What is not here, and the way out, for `suggest`."""

CLASSES = {"adam_w": "AdamW", "gd": "SGD", "gradient_descent": "SGD", "stochastic_gradient_descent": "SGD"}
"""The classes that are the same, for `suggest`."""

ABSENT_CLASSES = {
    **rows("momentum heavy_ball", "momentum is a keyword, SGD(momentum=0.9)"),
    **rows("polyak", "momentum is a keyword, SGD(momentum=0.9), and Polyak's step is PolyakSGD"),
    **rows("nag nesterov", "Nesterov's momentum is a keyword, SGD(momentum=0.9, nesterov=True)"),
    **rows("nadamw", "NAdam has weight_decay, as every optimizer: NAdam(weight_decay=0.01)"),
    **rows("sam", "climb(params, grads, rho) goes to where the second gradient is taken"),
    **rows("schedule_free", "there are ScheduleFreeSGD and ScheduleFreeAdamW"),
    **rows(
        "asgd lbfgs madgrad shampoo sm3 sophia sparse_adam",
        "this algorithm is not here: write it as a rule of your own",
    ),
}
"""The algorithms that are not here, for `suggest`."""


ATTRIBUTES = {
    "add_param_group": "it holds no parameters, and a new one begins with its first update",
    "apply_gradients": "params = opt.update_all(params, grads) updates a model",
    "get_config": "opt.hyperparameters shows the settings, and make_optimizer takes them",
    "init": "the state of a parameter begins with its first update; it is in opt.cache",
    "learning_rate": "opt.lr or opt.hyperparameters['lr'] shows the rate, opt.set_params({'lr': ...}) changes it",
    "minimize": "compute the gradients, then params = opt.update_all(params, grads)",
    "param_groups": "it holds no parameters; opt.hyperparameters['groups'] shows settings of some of them by name",
    "zero_grad": "gradients are given to each update and none is kept",
}
"""The attributes that optimizers have elsewhere and not here, and the way out, for `answers`."""


def hint(name: str, known: tuple[str, ...]) -> str:
    """Say what an unknown keyword of an optimizer was meant to be, of those that are `known`."""
    return suggest(name, known, MEANT, ABSENT)


def hint_of_class(name: str, known: tuple[str, ...]) -> str:
    """Say which optimizer an unknown name was meant to be."""
    return suggest(name, known, CLASSES, ABSENT_CLASSES)
