"""Backends of third parties, as modules' sources."""

ACME = """
    from sglang_fl import BackendImplKind, Communicator, Diagnosis, OpImpl, hookimpl

    print("acme greets")

    def impl(op, is_available):
        return OpImpl(op=op, impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme",
                      fn="acme_chip:never_called", is_available=is_available)

    @hookimpl
    def sglang_fl_register_ops(platform):
        return [impl("rms_norm", lambda: True), impl("silu_and_mul", lambda: "[b]acme.ko[/b] is not loaded :cry:")]

    @hookimpl
    def sglang_fl_register_communicators(platform):
        return [Communicator(name="acmecl", create="acme_chip:never_called")]

    @hookimpl
    def sglang_fl_diagnose():
        print("acme looks around")
        return [Diagnosis(subject="acme.ko", ok=True, found="7.1"), Diagnosis(subject="fan", ok=None, found="loud")]
"""
"""Has an rms_norm that is available, a silu_and_mul that is not, and prints as it is imported."""

UNABLE_TO_IMPORT = "import a_module_that_nobody_has"

FAILING_LATE = """
    from sglang_fl import hookimpl

    @hookimpl
    def sglang_fl_register_ops(platform):
        raise RuntimeError("libacme.so.1 is of another CUDA")
"""

WITH_SETTINGS = """
    from sglang_fl import Setting, hookimpl

    @hookimpl
    def sglang_fl_register_settings():
        return [Setting(key="acme_turbo", type=bool, default=False, help="spin faster")]

    @hookimpl
    def sglang_fl_default_settings(platform):
        return {"prefer": "vendor", "acme_turbo": True}
"""

WITH_ATEN_OPS = """
    from sglang_fl import AtenOp, SglangFlError, hookimpl

    @hookimpl
    def sglang_fl_aten_ops(platform, settings):
        print("acme greets")
        if settings.strict:
            raise SglangFlError("acme", asked="speed", found="none", do="wait")
        return [
            AtenOp(name="add.Tensor", by="acme.add", replaced=True, reason="acme_turbo is on"),
            AtenOp(name="add_.Tensor", by="acme.add_", replaced=True, reason="acme_turbo is on"),
            AtenOp(name="mm", by="acme.mm", replaced=False, reason="[b]wrong[/b] below 16 columns"),
        ]
"""
"""Replaces two of PyTorch's own ops, and not a third."""

DIAGNOSING = """
    from sglang_fl import Diagnosis

    @hookimpl
    def sglang_fl_diagnose():
        return [Diagnosis(subject="acme.ko", ok=True, found="7.1")]
"""
"""Tells of its driver. To be added to what has hooks."""
