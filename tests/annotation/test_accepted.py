import numpy as np

from medapp.annotation.accepted import accepted_masks, masks_sha256
from medapp.annotation.annotation import Annotation
from medapp.annotation.matte import Matte

SHAPE = (3, 10, 12)


def make_annotation(*alphas, **props):
    annotation = Annotation("s", SHAPE)
    for number, alpha in enumerate(alphas):
        matte = Matte(f"m{number}", SHAPE, **props)
        patch = matte.make_patch("alpha", (1, 0, 0), alpha[None])
        if patch is not None:
            matte.paste(patch)
        annotation.add(matte)
    return annotation


def test_alpha_from_one_half_counts_and_empty_mattes_do_not():
    alpha = np.zeros(SHAPE[1:], dtype=np.float32)
    alpha[2, :5] = 0.5
    alpha[3, :5] = 0.499
    faint = np.full(SHAPE[1:], 0.2, dtype=np.float32)
    annotation = make_annotation(faint, alpha, is_visible=False)

    (mask,) = accepted_masks(annotation, 1)
    assert np.array_equal(mask, alpha >= 0.5)
    assert accepted_masks(annotation, 0) == []
    (across,) = accepted_masks(annotation, 2, axis=1)
    assert across.shape == (3, 12)
    assert across[1, :5].all()
    assert across.sum() == 5


def test_the_hash_tells_one_painting_from_another():
    large, small = np.zeros((8, 9), dtype=bool), np.zeros((8, 9), dtype=bool)
    large[1:6, 1:6], small[2:4, 2:4] = True, True
    assert masks_sha256([]) == ""
    assert masks_sha256([large, small]) == masks_sha256([small, large])  # painted by size, not by place in the list
    assert len({masks_sha256(m) for m in ([large], [small], [large, small], [large.reshape(9, 8)])}) == 4
