"""Overrides of a run that takes a second: small random models, letters, six steps in two epochs."""

WHOLE_VIT = ("backbone=vit_tiny_random", "backbone.build.image_size=32")
VIT = (*WHOLE_VIT, "backbone.build.name=test_vit")  # of half the depth and a third of the width
VIT += ("backbone.name=vit_tiny_random",)
CLIP = ("backbone=clip_vitb32", "backbone.build.name=tiny-clip", "backbone.build.pretrained=null")
TINY = (
    "data=folder",
    "data.root=${data_root}/glyphs/train",
    "data.test=../test",
    "data.name=folder",
    "evaluation=in_domain",
    "split_protocol=official",
    "shots=6",
    "optim.epochs=2",
    "loading.batch_size=8",
    "loading.min_batches=3",
    "tracking=none",
    "checkpoint_every=1",
    "++trainer.enable_progress_bar=false",
    "++trainer.enable_model_summary=false",
    "trainer.accelerator=cpu",
)
