"""A kernel whose cryptography NVIDIA's driver cannot use is refused, each missing option by its name."""

from __future__ import annotations

import pytest

from tinboot.builder import kernel_options
from tinboot.formats.errors import Refused

GOOD = "".join(f"CONFIG_{option}=y\n" for option in kernel_options.NEEDED)


def test_built_in() -> None:
    kernel_options.check("# a comment\n\n" + GOOD, [])


@pytest.mark.parametrize("option", [*kernel_options.NEEDED])
@pytest.mark.parametrize(
    "value", ["", "# CONFIG_{} is not set", "CONFIG_{}=n", "CONFIG_{}X=y", 'CONFIG_{}=""']
)
def test_each_option_that_is_missing(option: str, value: str) -> None:
    config = GOOD.replace(f"CONFIG_{option}=y\n", value.format(option) + "\n")
    assert kernel_options.problems(config, ["nvidia"]) == [f"CONFIG_{option} is not set"]


MODULES = [pair for pair in (kernel_options.NEEDED | kernel_options.ASKED_FOR).items() if pair[1]]


@pytest.mark.parametrize(("option", "module"), MODULES)
def test_modules_have_to_be_listed(option: str, module: str) -> None:
    """Nothing loads one on the kernel's demand."""
    config = GOOD.replace(f"CONFIG_{option}=y\n", "") + f"CONFIG_{option}=m\n"
    kernel_options.check(config, [module])
    with pytest.raises(Refused, match=f"CONFIG_{option} is the module {module}, which nothing loads"):
        kernel_options.check(config, [])


def test_a_framework_comes_with_what_uses_it() -> None:
    kernel_options.check(GOOD.replace("CONFIG_CRYPTO_AEAD=y", "CONFIG_CRYPTO_AEAD=m"), [])


def test_all_problems_at_once() -> None:
    with pytest.raises(Refused) as refused:
        kernel_options.check("", [])
    assert refused.value.message.count("is not set") == len(kernel_options.NEEDED)
    assert "modules.ubuntu" in refused.value.hint
