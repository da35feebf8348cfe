"""Data that looks right and is not."""

from tests.mutants.harness import Mutant

DATA = "dulcourse/data/"
MUTANTS = (
    Mutant(
        "photographs: patches reach into the next split's strip",
        DATA + "photos.py",
        "np.arange(low, high - size + 1)",
        "np.arange(low, high)",
        "tests/data/test_photos.py::test_a_patch_lies_in_a_strip_of_its_split",
    ),
    Mutant(
        "Ising: columns are not coupled",
        DATA + "ising.py",
        "transfer = np.exp(coupling * (s @ s.T)) * alone",
        "transfer = np.ones((len(s), len(s))) * alone",
        "tests/data/test_ising.py::test_the_transfer_matrix_agrees_with_enumeration",
    ),
    Mutant(
        "Ising: rows are drawn without a look at what is still to come",
        DATA + "ising.py",
        "below = total / total.sum()",
        "below = np.ones(len(s))",
        "tests/data/test_ising.py::test_the_transfer_matrix_agrees_with_enumeration",
    ),
    Mutant(
        "Ising: a row is drawn whatever the row above",
        DATA + "ising.py",
        "np.cumsum(conditional, axis=1)[states[-1]]",
        "np.cumsum(conditional, axis=1)[np.zeros(len(u), np.int64)]",
        "tests/data/test_ising.py::test_the_mean_code_length_of_draws_is_the_entropy",
    ),
    Mutant(
        "shapes: a replaced symbol is never the one that was there",
        DATA + "shapes.py",
        "np.where(u < NOISE, (u / NOISE * levels).astype(np.int64).clip(0, levels - 1), image)",
        "np.where(u < NOISE, (image + 1 + (u / NOISE * (levels - 1)).astype(np.int64)) % levels, image)",
        "tests/data/test_shapes.py::test_noise_has_the_law_it_claims",
    ),
    Mutant(
        "shapes: earlier shapes cover later ones",
        DATA + "shapes.py",
        "for shape in range(inside.shape[1]):",
        "for shape in reversed(range(inside.shape[1])):",
        "tests/data/test_shapes.py::test_later_shapes_cover_earlier_ones",
    ),
    Mutant(
        "toy2d: cells round to the nearest edge",
        DATA + "toy2d.py",
        "np.floor(levels * (points + EDGE) / (2 * EDGE))",
        "np.round(levels * (points + EDGE) / (2 * EDGE))",
        "tests/data/test_toys.py::test_toy2d_on_a_grid_is_the_same_point_in_a_cell",
    ),
    Mutant(
        "toy2d: points beyond the grid wrap around",
        DATA + "toy2d.py",
        "np.clip(cell, 0, levels - 1)",
        "cell % levels",
        "tests/data/test_toys.py::test_toy2d_beyond_the_grid_goes_to_its_edge",
    ),
    Mutant(
        "a fresh event depends on its place in the batch",
        "dulcourse/randomness.py",
        '_digests(b"generator", key, indices)',
        '_digests(b"generator", key, range(len(indices)))',
        "tests/data/test_glyphs.py::test_an_event_is_the_same_in_any_company",
    ),
    Mutant(
        "CIFAR-10: pixels are read as interleaved colours",
        DATA + "cifar10.py",
        "records[:, 1:].reshape(-1, *_SHAPE)",
        "records[:, 1:].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)",
        "tests/data/test_downloads.py::test_cifar10_is_red_green_and_blue_planes",
    ),
    Mutant(
        "MNIST: the published test images are validated on",
        DATA + "idx.py",
        'part = "t10k" if split == "test" else "train"',
        'part = "train" if split == "train" else "t10k"',
        "tests/data/test_downloads.py::test_idx_splits_are_the_published_ones",
    ),
    Mutant(
        "an altered file is taken for the published one",
        DATA + "downloads.py",
        'pooch.retrieve(url, f"sha256:{sha256}", fname',
        "pooch.retrieve(url, None, fname",
        "tests/data/test_downloads.py::test_without_a_network_the_error_names_folder_file_and_address",
    ),
)
