"""Stands in for the rule repositories that Bazel would fetch for every Python target, so that nothing is downloaded.

Bazel resolves toolchains of other languages before it builds a py_binary or py_test, and loads their rules from
repositories of their own. Nothing here is written in those languages: the rules that come with Bazel will do.
"""

_CC = [
    "cc_binary",
    "cc_import",
    "cc_library",
    "cc_proto_library",
    "cc_test",
    "cc_toolchain",
    "cc_toolchain_suite",
    "fdo_prefetch_hints",
    "fdo_profile",
    "objc_import",
    "objc_library",
]
_JAVA = [
    "java_binary",
    "java_import",
    "java_library",
    "java_package_configuration",
    "java_plugin",
    "java_runtime",
    "java_test",
    "java_toolchain",
]

def _native_rules_impl(ctx):
    ctx.file("BUILD", "".join([
        "filegroup(name = \"%s\", visibility = [\"//visibility:public\"])\n" % name
        for name in ctx.attr.filegroups
    ]))
    if ctx.attr.package:
        ctx.file(ctx.attr.package + "/BUILD")
        lines = ["%s = native.%s\n" % (rule, rule) for rule in ctx.attr.rules]
        ctx.file(ctx.attr.package + "/defs.bzl", "".join(lines))

_native_rules = repository_rule(
    implementation = _native_rules_impl,
    attrs = {
        "filegroups": attr.string_list(),
        "package": attr.string(),
        "rules": attr.string_list(),
    },
)

def local_rules():
    """Declares the repositories; to be called from WORKSPACE."""
    _native_rules(name = "rules_cc", package = "cc", rules = _CC)
    _native_rules(name = "rules_java", package = "java", rules = _JAVA)
    _native_rules(name = "rules_proto", package = "proto")
    _native_rules(name = "remote_coverage_tools", filegroups = ["coverage_report_generator"])
