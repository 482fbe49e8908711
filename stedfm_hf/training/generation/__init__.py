"""Training of the diffusion model that `stedfm pretrain generation` starts."""
