"""Bugs of flows: a sign, a mask, an index, a log-det over the wrong half."""

from tests.mutants.harness import Mutant

__all__ = ["MUTANTS"]

BASE, ELEMENTWISE, AFFINE = (f"dulcourse/flows/{name}.py" for name in ("base", "elementwise", "affine"))
MIXTURE, MAF = (f"dulcourse/flows/{name}.py" for name in ("mixture_cdf", "masked_autoregressive"))
COUPLING, MONOTONE = (f"dulcourse/flows/{name}.py" for name in ("coupling", "monotone"))
RESHAPE, REALNVP, NICE = (f"dulcourse/flows/{name}.py" for name in ("reshape", "realnvp", "nice"))
NOISE = "dulcourse/flows/dequantisation.py"


def _mutants(file: str, tests: str, *rows: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    """Rows of (what, old, new, test), the test named without its file, which is `tests`."""
    return tuple(
        Mutant(what, file, old, new, (f"tests/flows/{tests}::{test}",)) for what, old, new, test in rows
    )


MUTANTS: tuple[Mutant, ...] = (
    *_mutants(
        BASE,
        "test_base.py",
        (
            "the log-det is taken from log p",
            "return self.prior_log_prob(z) + log_det",
            "return self.prior_log_prob(z) - log_det",
            "test_the_density_integrates_to_one_in_two_dimensions",
        ),
        (
            "the log-det is left out",
            "return self.prior_log_prob(z) + log_det",
            "return self.prior_log_prob(z)",
            "test_the_density_integrates_to_one_in_two_dimensions",
        ),
        (
            "the inverse of a composition keeps the order",
            "for transform in reversed(self.transforms):",
            "for transform in self.transforms:",
            "test_composition_is_one_to_one",
        ),
        (
            "sampled from a standard normal whatever the prior",
            "        if self.prior is None:\n            z = torch.randn",
            "        if True:\n            z = torch.randn",
            "test_samples_have_the_moments_of_the_density",
        ),
    ),
    *_mutants(
        ELEMENTWISE,
        "test_elementwise.py",
        (
            "the scaling's log-det is that of the inverse",
            "return torch.full_like(x, math.log(abs(self.factor)))",
            "return torch.full_like(x, -math.log(abs(self.factor)))",
            "test_maps_of_real_numbers_are_one_to_one",
        ),
        (
            "the scaling's log-det is left out",
            "return torch.full_like(x, math.log(abs(self.factor)))",
            "return torch.zeros_like(x)",
            "test_dividing_costs_exactly_the_logarithm_of_the_divisor",
        ),
        (
            "the margin is forgotten in the logit's slope",
            "return math.log1p(-2 * self.margin) - torch.log(p) - torch.log1p(-p)",
            "return -torch.log(p) - torch.log1p(-p)",
            "test_maps_of_the_unit_interval_are_one_to_one",
        ),
        (
            "the leaky slope is on the other side",
            "return torch.where(x < 0, math.log(self.slope), torch.zeros_like(x))",
            "return torch.where(x > 0, math.log(self.slope), torch.zeros_like(x))",
            "test_the_slope_is_that_of_finite_differences",
        ),
    ),
    *_mutants(
        AFFINE,
        "test_affine.py",
        (
            "log|det A| with the wrong sign",
            "return z.reshape(x.shape), -self.log_diagonal.sum().expand(len(x))",
            "return z.reshape(x.shape), self.log_diagonal.sum().expand(len(x))",
            "test_it_is_the_normal_distribution_of_mean_b_and_covariance_a_a",
        ),
        (
            "the upper factor keeps its free diagonal",
            "self.upper.triu(1)",
            "self.upper.triu(0)",
            "test_the_log_det_is_minus_that_of_the_matrix",
        ),
        (
            "the matrix is transposed on the way back",
            "x = z.flatten(1) @ self.matrix.T + self.b",
            "x = z.flatten(1) @ self.matrix + self.b",
            "test_it_is_one_to_one",
        ),
        (
            "the diagonal is averaged over the elements",
            "return (x - self.b) * self.log_scale.exp(), self.log_scale.sum().expand(len(x))",
            "return (x - self.b) * self.log_scale.exp(), self.log_scale.mean().expand(len(x))",
            "test_standardising_gives_mean_zero_and_deviation_one",
        ),
    ),
    *_mutants(
        MIXTURE,
        "test_mixture_cdf.py",
        (
            "the side of the median is swapped",
            "side = torch.where(above < below, 1.0, -1.0)",
            "side = torch.where(above < below, -1.0, 1.0)",
            "test_it_is_one_to_one",
        ),
        (
            "the target's density is multiplied in place of divided",
            "self._log_hazard(x, side, parameters) - self.target.log_hazard(outward)",
            "self._log_hazard(x, side, parameters) + self.target.log_hazard(outward)",
            "test_its_density_is_the_mixture_whatever_the_target",
        ),
        (
            "the components' scales are left out of the density",
            "self.law.log_hazard(outward) - log_scales, -1)",
            "self.law.log_hazard(outward), -1)",
            "test_its_density_is_the_mixture_whatever_the_target",
        ),
        (
            "the weights are not normalised",
            "return F.log_softmax(logits, -1), means, log_scales",
            "return logits, means, log_scales",
            "test_its_density_is_the_mixture_whatever_the_target",
        ),
        (
            "the hazard as a difference of two large logarithms",
            "return torch.where(u < 30, near, fraction.log())",
            "return _log_phi(u) - torch.special.log_ndtr(-u)",
            "test_far_out_everything_is_a_number",
        ),
        (
            "a tolerance that float32 cannot reach, and no more than Newton's steps",
            "x = torch.where(good, newton, torch.where(done, x, (low + high) / 2))",
            "x = newton",
            "test_the_inverse_reaches_the_tolerance_that_float32_has",
        ),
    ),
    *_mutants(
        MAF,
        "test_masked_autoregressive.py",
        (
            "the outputs see their own number",
            "MaskedLinear(mask(seen, outputs, strict=True), bias=bias, generator=generator)",
            "MaskedLinear(mask(seen, outputs, strict=False), bias=bias, generator=generator)",
            "test_it_is_one_to_one",
        ),
        (
            "the hidden layers are strict, too, and lose numbers",
            "MaskedLinear(mask(a, b, strict=False), generator=generator)",
            "MaskedLinear(mask(a, b, strict=True), generator=generator)",
            "test_the_inverse_is_the_naive_one",
        ),
        (
            "the order is taken for the rank",
            "return z[:, self.rank].reshape(x.shape), log_slope.sum(1)",
            "return z[:, self.order].reshape(x.shape), log_slope.sum(1)",
            "test_the_jacobian_is_triangular_in_the_order_and_has_no_hole",
        ),
        (
            "the inverse's log-det has the forward sign",
            "log_det = log_det - log_slope",
            "log_det = log_det + log_slope",
            "test_it_is_one_to_one",
        ),
        (
            "all layers in one order",
            "order.flip(0) if layer % 2 else order",
            "order",
            "test_orders_alternate",
        ),
    ),
    *_mutants(
        COUPLING,
        "test_coupling.py",
        (
            "the log-det over the half that stays",
            "torch.where(self.mask, 0.0, log_slope)",
            "torch.where(self.mask, log_slope, 0.0)",
            "test_the_log_det_is_the_sum_of_s_over_the_transformed_half",
        ),
        (
            "the log-det over both halves",
            "torch.where(self.mask, 0.0, log_slope)",
            "log_slope",
            "test_the_log_det_is_the_sum_of_s_over_the_transformed_half",
        ),
        (
            "the network sees what it changes",
            "self.network(torch.where(self.mask, x, 0.0))",
            "self.network(x)",
            "test_it_is_one_to_one_under_any_mask",
        ),
        (
            "numbers and channels are mixed up",
            "theta.unflatten(1, (self.monotone.numbers, len(self.mask))).movedim(1, -1)",
            "theta.unflatten(1, (len(self.mask), self.monotone.numbers)).movedim(2, -1)",
            "test_the_log_det_is_the_sum_of_s_over_the_transformed_half",
        ),
        (
            "the checkerboard has stripes",
            "(torch.arange(H)[:, None] + torch.arange(W)) % 2 == 0",
            "(0 * torch.arange(H)[:, None] + torch.arange(W)) % 2 == 0",
            "test_checkerboards_and_channel_masks",
        ),
    ),
    *_mutants(
        MONOTONE,
        "test_coupling.py",
        (
            "a scale that cannot expand",
            "(self.bound * torch.tanh(s / self.bound))",
            "(-self.bound * torch.sigmoid(s))",
            "test_a_scale_can_expand_and_contract",
        ),
        (
            "the inverse scales before it shifts",
            "return (z - t) * (-s).exp(), s",
            "return z * (-s).exp() - t, s",
            "test_it_is_one_to_one_under_any_mask",
        ),
    ),
    *_mutants(
        NICE,
        "test_coupling.py",
        (
            "no scaling at the end",
            "Compose([*steps, Diagonal(shape)])",
            "Compose([*steps, Scaling(1.0)])",
            "test_nice_keeps_volumes_but_for_one_scaling",
        ),
        (
            "the same half moves each time",
            "alternating(shape, i % 2 == 0)",
            "alternating(shape, True)",
            "test_nice_keeps_volumes_but_for_one_scaling",
        ),
        (
            "the levels are divided by half of what is said",
            "Scaling(2 / levels, -1.0)",
            "Scaling(1 / levels, -1.0)",
            "test_nice_in_data_units_counts_the_scaling_of_the_data",
        ),
    ),
    *_mutants(
        RESHAPE,
        "test_coupling.py",
        (
            "squeezed back with rows and columns swapped",
            '"b (c i j) h w -> b c (h i) (w j)"',
            '"b (c j i) h w -> b c (h i) (w j)"',
            "test_squeezing_moves_blocks_into_channels",
        ),
        (
            "a halved size is rounded down",
            "if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:",
            "if len(shape) != 3 or shape[1] % 2:",
            "test_wrong_inputs_are_refused_in_words",
        ),
        (
            "the finished half goes on, too",
            "z, log_det = self.rest(x[:, self.done :])",
            "z, log_det = self.rest(x[:, : x.shape[1] - self.done])",
            "test_factoring_out_keeps_half_and_transforms_the_rest",
        ),
        (
            "the log-det of what goes on is dropped",
            "return torch.cat([x[:, : self.done].flatten(1), z.flatten(1)], 1), log_det",
            "return torch.cat([x[:, : self.done].flatten(1), z.flatten(1)], 1), 0 * log_det",
            "test_factoring_out_keeps_half_and_transforms_the_rest",
        ),
    ),
    *_mutants(
        REALNVP,
        "test_coupling.py",
        (
            "the same channels stay each time",
            "coupling(channels(squeezed, i % 2 == 0)) for i in range(3)",
            "coupling(channels(squeezed, True)) for i in range(3)",
            "test_every_other_coupling_moves_the_other_half",
        ),
        (
            "one colour of the board never moves",
            "coupling(halves(shape, i % 2 == 0))",
            "coupling(halves(shape, True))",
            "test_every_other_coupling_moves_the_other_half",
        ),
        (
            "a pixel is given a checkerboard",
            "halves = checkerboard if shape[1] * shape[2] > 1 else channels",
            "halves = checkerboard",
            "test_realnvp_at_several_scales",
        ),
    ),
    *_mutants(
        NOISE,
        "test_dequantisation.py",
        (
            "noise around the integer in place of above it",
            "    return torch.minimum(x + u, end)",
            "    return torch.minimum(x + u - 0.5, end)",
            "test_noise_stays_inside_the_cell",
        ),
        (
            "single precision rounds up into the next level",
            "    return torch.minimum(x + u, end)",
            "    return x + u",
            "test_noise_stays_inside_the_cell",
        ),
        (
            "rounded to the nearest on the way back",
            "z.floor().clamp(0, self.levels - 1)",
            "z.round().clamp(0, self.levels - 1)",
            "test_as_a_transform_it_goes_there_and_back",
        ),
        (
            "nothing is clamped on the way back",
            "z.floor().clamp(0, self.levels - 1)",
            "z.floor()",
            "test_what_lies_outside_comes_back_to_the_nearest_level",
        ),
        (
            "the density in place of its negative",
            "return -model.log_prob(dequantise(x, generator))",
            "return model.log_prob(dequantise(x, generator))",
            "test_the_loss_is_that_mean",
        ),
    ),
)
