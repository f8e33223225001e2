"""Self-supervised pre-training of the encoders: contrastive, geometric, by video, and by pretext tasks.

Five nouns: a *view* of an image (`views`), a *pair* of views with its *correspondence* (`pairs`, `correspond`), an
*encoder* (the classes of `geossl.networks`), a *head* (`heads`), an *objective* (`objectives`, `metric_losses`). A
method is one file that puts them together, with the contract of `geossl.methods.method`; `memory` holds what outlives
a step: queues, banks, moving averages. What is handed over is the method's `encoder`: see `geossl.networks.handover`.
"""

PRETRAINING = {
    "pretrain_dense": "geossl.pretrain.dense_infonce:DenseInfoNCE",
    "pretrain_simclr": "geossl.pretrain.simclr:SimCLR",
    "pretrain_moco": "geossl.pretrain.moco:MoCo",
    "pretrain_byol": "geossl.pretrain.byol:BYOL",
    "pretrain_align_uniform": "geossl.pretrain.align_uniform:AlignUniform",
    "pretrain_metric": "geossl.pretrain.metric:Metric",
    "pretrain_instance": "geossl.pretrain.instance_discrimination:InstanceDiscrimination",
    "pretrain_flow": "geossl.pretrain.flow_reconstruction:FlowReconstruction",
    "pretrain_colour": "geossl.pretrain.video_colour:VideoColour",
    "pretrain_cpc": "geossl.pretrain.cpc:CPC",
    "pretrain_infomax": "geossl.pretrain.deep_infomax:DeepInfoMax",
    "pretrain_cmc": "geossl.pretrain.cmc:CMC",
    "pretrain_autoencoder": "geossl.pretrain.reconstruction:Plain",
    "pretrain_vae": "geossl.pretrain.reconstruction:Variational",
    "pretrain_denoise": "geossl.pretrain.reconstruction:Denoising",
    "pretrain_inpaint": "geossl.pretrain.reconstruction:Inpainting",
    "pretrain_context": "geossl.pretrain.context_prediction:ContextPrediction",
    "pretrain_jigsaw": "geossl.pretrain.jigsaw:Jigsaw",
    "pretrain_rotation": "geossl.pretrain.rotation:Rotation",
    "pretrain_exemplar": "geossl.pretrain.exemplar:Exemplar",
    "pretrain_colourise": "geossl.pretrain.colourisation:Colourisation",
    "pretrain_split_brain": "geossl.pretrain.split_brain:SplitBrain",
    "pretrain_order": "geossl.pretrain.temporal_order:FrameOrder",
    "pretrain_arrow": "geossl.pretrain.temporal_order:ArrowOfTime",
    "pretrain_tracking": "geossl.pretrain.tracking:Tracking",
}
"""The names that a config's `method` may use; nothing of them is imported before it is used."""
