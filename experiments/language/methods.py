"""The methods that are compared: PEFT configs of about as many trainable parameters as KRAdapter has."""

from collections.abc import Callable, Mapping

from peft import LoraConfig, PeftConfig, RandLoraConfig, ShiraConfig, VeraConfig

from kravl.peft import KRAdapterConfig

LAYERS = (3, 4, 5)  # adapted; those below are frozen, so that a text goes through them once
WHERE = (
    r".*layer\.[345]\.(attention\.self\.(query|key|value)|attention\.output\.dense|intermediate\.dense|output\.dense)"
)
# On 384 x 384 KRAdapter has 15,360 parameters, on 1536 x 384 38,400: LoRA of rank 20 has exactly as many. Ranks of the
# others are the nearest that do not have more; VeRA has no rank at which it has, and takes its paper's.
METHODS: Mapping[str, Callable[[], PeftConfig] | None] = {
    "zero-shot": None,
    "KRAdapter": lambda: KRAdapterConfig(target_modules=WHERE),
    "LoRA": lambda: LoraConfig(target_modules=WHERE, r=20, lora_alpha=40),
    "full": None,
    "RandLoRA": lambda: RandLoraConfig(target_modules=WHERE, r=7, randlora_alpha=140),
    "DoRA": lambda: LoraConfig(target_modules=WHERE, r=19, lora_alpha=38, use_dora=True),
    "VeRA": lambda: VeraConfig(target_modules=WHERE, r=256),
    "SHiRA": lambda: ShiraConfig(target_modules=WHERE, r=20),
}
