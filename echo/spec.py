"""Facts of the Echo-TTS model family that do not change from one checkpoint to the next.

Axis letters, used in every docstring:

====  ======================================================
B     batch
T     audio samples (44.1 kHz, mono)
S     speaker latents (a reference voice)
N     target latents (what is generated)
P     patches of ``PATCH`` latents
L     text tokens (UTF-8 bytes)
D     model width; H heads; d head size
====  ======================================================
"""

SAMPLE_RATE = 44_100  # Hz, of the S1-DAC codec
HOP = 2_048  # samples per latent
LATENTS_PER_SECOND = SAMPLE_RATE / HOP  # 21.53
MAX_LATENTS = 640  # 29.72 s: the longest generation the model was trained on, prefix included
MAX_SPEAKER_LATENTS = 6_400  # 297 s of reference voice
SPEAKER_PIECE_LATENTS = 640  # reference audio is encoded in pieces of this length
MAX_REFERENCE_SECONDS = 300.0  # of a voice file; what is longer is cut
MAX_TEXT_TOKENS = 768  # BOS included
BOS_TOKEN = 0  # also the padding token, then masked
INIT_SCALE = 0.999  # schedule start: score rescaling divides by 1 - t

MODEL_REPO = "jordand/echo-tts-base"
CODEC_REPO = "jordand/fish-s1-dac-min"
CHECKPOINT_LICENCE = "CC-BY-NC-SA-4.0"  # of the two repositories above

END_WINDOW_LATENTS = 20  # end point: the first window this long that is flat ...
END_STD = 0.05  # ... with a standard deviation below this
END_MEAN = 0.1  # ... and an absolute mean below this
