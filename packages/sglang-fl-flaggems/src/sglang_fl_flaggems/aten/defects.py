"""What FlagGems gets wrong and does not tell: such ops stay PyTorch's own.

Each of these was seen to differ from PyTorch for calls that PyTorch takes, and its source read: on an H100 by
``benchmarks/aten.py``, and in Triton's interpreter. ``benchmarks/results`` has the calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packaging.version import Version

from .table import of_release

EXAMINED = "5.0.2"
"""The release of FlagGems that was compared with PyTorch. Of any other it is not known what it has mended."""

_WRONG: Mapping[str, str] = {
    "it writes outside a tensor that is not contiguous": (
        "cumsum.out hardsigmoid.out repeat_interleave.Tensor repeat_interleave.self_Tensor round.out scatter.reduce "
        "scatter.src zero_"
    ),
    "it reads and writes past rows whose length is no power of two": "argmin",
    "it overruns a buffer of its own for complex numbers": "vdot",
    "it overwrites its argument": "native_batch_norm zero",
    "it takes what is not contiguous for contiguous": (
        "_is_all_true _log_softmax_backward_data _softmax_backward_data _upsample_bicubic2d_aa all all.dims amax "
        "aminmax any any.dims argmax conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding dot "
        "hardsigmoid index_add index_add_ index_select logit min native_dropout_backward prod select_scatter "
        "slice_backward slice_scatter sum.out topk unfold_backward upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d var var.correction var.dim var_mean.correction"
    ),
    "it leaves an out that is not contiguous as it was": "reflection_pad1d.out reflection_pad2d.out sum.IntList_out",
    "it does not resize an empty out": "special_i0e.out t_copy.out zero.out",
    "it does not take negative indices": "_index_put_impl_ index.Tensor index_put index_put_",
    "it does not hand on NaN": (
        "_log_softmax angle clamp clamp.Tensor clamp_ clamp_.Tensor clamp_min clamp_min_ clip clip_ logit_ "
        "margin_ranking_loss max max.dim max_pool2d_with_indices maximum min.dim minimum relu relu6 relu_ selu "
        "threshold threshold_backward"
    ),
    "it computes with integers as float32": (
        "addcmul ceil ceil.out ceil_ eq.Scalar eq.Tensor equal ge.Scalar ge.Tensor greater.Scalar greater.Scalar_out "
        "greater.Tensor greater.out gt.Scalar gt.Tensor le.Scalar le.Tensor lt.Scalar lt.Tensor masked_fill.Scalar "
        "masked_fill.Tensor masked_fill_.Scalar masked_fill_.Tensor mv ne.Scalar ne.Tensor pow.Scalar "
        "pow.Tensor_Scalar pow.Tensor_Tensor pow_.Scalar pow_.Tensor triu triu_"
    ),
    "its result has another dtype for some inputs": (
        "addcdiv arange arange.start arange.start_step atan2 bincount cummax cummin erf fmin log prod.dim_int "
        "special_i1 square sum sum.dim_IntList"
    ),
    "it counts NaN in what beta=0 leaves out": "addmm addmm.out addmv addmv.out addr baddbmm",
    "it does not broadcast": "masked_scatter mse_loss",
    "it returns float64 as it was": "floor_ round round_",
    "it leaves a complex tensor as it was": (
        "div.out div_.Scalar div_.Scalar_mode div_.Tensor div_.Tensor_mode divide_.Scalar divide_.Scalar_mode "
        "divide_.Tensor divide_.Tensor_mode mul_.Tensor true_divide_.Scalar true_divide_.Tensor"
    ),
    "it is wrong at infinity": (
        "arcsinh arcsinh.out arcsinh_ asinh_ hypot lerp.Scalar lerp_.Scalar logaddexp logaddexp.out nan_to_num quantile"
    ),
    "it overflows for large complex numbers": "absolute",
    "it loses the deviation beside a large mean": "std.correction",
    "it is wrong unless a group has a power of two of channels": "native_group_norm native_group_norm_backward",
    "its statistics have another shape": "native_layer_norm",
    "its total weight is not initialised": "nll_loss2d_forward nll_loss_forward",
    "it picks other elements": "_upsample_nearest_exact1d",
    "it divides by another number where a window overhangs": "avg_pool2d avg_pool2d_backward",
    "it is zero for negative orders": "linalg_vector_norm",
    "it rounds integers otherwise": "linspace",
    "it is wrong with invert and nothing to test for": "isin.Scalar_Tensor isin.Tensor_Tensor",
    "it is wrong for circular padding by a negative width": "pad",
    "it leaves its argument as it was": "scatter_add_",
    "it differentiates as in training, whatever it is told": "native_batch_norm_backward",
    "it takes a scalar for float32": "isin.Tensor_Scalar",
    "it is wrong with an input_scale": "elu elu_ elu_backward",
    "it is wrong at its poles": "digamma_",
    "it is wrong with scales": "upsample_bicubic2d",
    "it converts to the dtype that is asked for after it has summed": "cumsum",
    "it does not resize an out of another shape": "i0.out",
    "it puts -0.0 before 0.0": "sort.stable",
    "it takes large unsigned numbers for negative": "copysign.out",
    "it computes in float64 where only a divisor without dimensions is": "remainder.Tensor remainder_.Tensor",
}
"""What is wrong -> the overloads of which it is."""

_WRONG_ON_CUDA: Mapping[str, str] = {
    "on Hopper it takes both factors for tensors of one shape, dtype and layout": "mul.Tensor",
    "on Hopper it writes outside a tensor that is not contiguous": (
        "fill.Scalar_out fill.Tensor_out fill_.Scalar fill_.Tensor"
    ),
    "on Hopper it takes what is not contiguous for contiguous": "sqrt sqrt_",
}


def silently_wrong(release: str | None, device_type: str) -> dict[str, str]:
    """Overload -> what is wrong with FlagGems' function for it, in ``release`` on devices of torch's ``device_type``.

    FlagGems has functions of its own for some generations of a vendor's chips; which one is here cannot be told without
    starting it, so what is wrong on one of them counts for all.

    A release that was not examined, or is unknown (None), is taken to be wrong where the examined one is.
    """
    tables = [_WRONG, _WRONG_ON_CUDA] if device_type == "cuda" else [_WRONG]
    seen = "" if _is_examined(release) else f" (seen in flag-gems {EXAMINED})"
    return {
        overload: f"{what}{seen}"
        for table in tables
        for what, overloads in table.items()
        for overload in overloads.split()
    }


def unexamined(release: str | None) -> Iterator[str]:
    """A warning, unless ``release`` is the one that was examined."""
    if not _is_examined(release):
        here = f"flag-gems {release}" if release else "the flag-gems that is installed, whose source names no release"
        yield (
            f"the list of what FlagGems gets wrong was made for flag-gems {EXAMINED} and not compared with {here}: "
            "what is on it stays with PyTorch, and what else this release gets wrong is not known"
        )


def _is_examined(release: str | None) -> bool:
    return release is not None and of_release(release) == Version(EXAMINED)
