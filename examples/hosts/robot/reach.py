"""A small smolvla of LeRobot's own code, and a made-up task that it learns in a minute: reach a place that the camera
shows, around an obstacle on either side.

    policy = trained(folder, iterations=600)

The policy's language and vision model is of the usual kind, with random weights and a few thousandths of the size; it
lies in ``folder``, from where LeRobot loads it.
"""

import logging

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

HORIZON, JOINTS, STATE, PIXELS = 16, 7, 3, 32
WIDTH = 8  # of an action as the policy pads it
WORDS = ["<pad>", "<unk>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "reach", "either", "left", "right"]
SIDES = {"either": 0.0, "left": -1.0, "right": 1.0}
CAMERA = "observation.images.front"


def write_model(folder):
    """The files of a language and vision model for SmolVLAConfig.vlm_model_name."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    named = {"fake_image_token": WORDS[3], "image_token": WORDS[2], "global_image_token": WORDS[4]}
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={**named, "end_of_utterance_token": WORDS[5]},
    )
    SmolVLMProcessor(SmolVLMImageProcessor(), words, SmolVLMVideoProcessor()).save_pretrained(folder)
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"head_dim": 16, "vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 5, "model_type": "llama"}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": PIXELS, "patch_size": 8}
    SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=2, image_token_id=2, pad_token_id=0).save_pretrained(folder)


def policy_of(folder, seed=0, layers=4):
    """A policy with random weights."""
    logging.getLogger("lerobot").setLevel(logging.ERROR)
    write_model(folder)
    config = SmolVLAConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, PIXELS, PIXELS)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        chunk_size=HORIZON,
        n_action_steps=HORIZON,
        max_state_dim=WIDTH,
        max_action_dim=WIDTH,
        resize_imgs_with_padding=(PIXELS, PIXELS),
        vlm_model_name=str(folder),
        load_vlm_weights=False,
        num_vlm_layers=layers,
        expert_width_multiplier=1.0,
        freeze_vision_encoder=False,
        train_expert_only=False,
        device="cpu",
    )
    torch.manual_seed(seed)
    return SmolVLAPolicy(config).eval()


def demonstrations(count, seed):
    """A batch as the policy is trained with: observations, as its preprocessor leaves them, and chunks of actions."""
    made = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=made) * 2 - 1

    goal, state = uniform(count, 2), uniform(count, STATE)
    words = torch.randint(0, len(SIDES), (count,), generator=made)
    side = torch.tensor(list(SIDES.values()))[words]
    side = torch.where(side == 0, torch.where(uniform(count) < 0, -1.0, 1.0), side)
    # From where the joints are to where the goal has them, with a detour, faster or slower.
    mixing = torch.randn((2 + STATE, 2 * JOINTS), generator=torch.Generator().manual_seed(1))
    ends = torch.cat([goal, state], 1) @ mixing
    begin, end = ends[:, None, :JOINTS], ends[:, None, JOINTS:]
    along = torch.linspace(0, 1, HORIZON)[None] ** (1 + 0.5 * uniform(count, 1))
    along = (along**3 * (10 - 15 * along + 6 * along**2))[:, :, None]
    detour = torch.sin(torch.pi * along) * side[:, None, None] * torch.linspace(0.5, 2, JOINTS)
    return {
        CAMERA: _seen(goal),
        "observation.state": state,
        "observation.language.tokens": torch.stack([torch.full((count,), WORDS.index("reach")), words + WORDS.index("either")], 1),
        "observation.language.attention_mask": torch.ones((count, 2), dtype=torch.bool),
        "action": (begin + along * (end - begin)) / 2 + detour,
    }


def observations(count, seed):
    """What the policy is given to act on."""
    return {key: value for key, value in demonstrations(count, seed).items() if key != "action"}


def _seen(goal):
    """Camera images with a light at the goal."""
    places = torch.linspace(-1, 1, PIXELS)
    off = (places[None, None, :] - goal[:, 0, None, None]) ** 2 + (places[None, :, None] - goal[:, 1, None, None]) ** 2
    return torch.exp(-off / 0.05)[:, None].expand(-1, 3, -1, -1).contiguous()


def trained(folder, iterations, batch=64, seed=0):
    """A policy that has seen ``iterations`` batches of demonstrations."""
    policy = policy_of(folder, seed)
    policy.train()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=iterations)
    for i in range(iterations):
        loss, _ = policy.forward(demonstrations(batch, seed=1000 + i))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return policy.eval()
