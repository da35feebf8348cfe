"""Bugs of autoregressive models: a mask, an index, a shift, a residual, a cache one pixel off."""

from tests.mutants.harness import Mutant

__all__ = ["MUTANTS"]


def _mutants(file: str, *rows: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    """Rows of (what, old, new, the one test file or node that should notice)."""
    return tuple(
        Mutant(what, f"dulcourse/autoregressive/{file}.py", old, new, f"tests/autoregressive/{test}")
        for what, old, new, test in rows
    )


BASE = _mutants(
    "base",
    (
        "the naive loop reads the logits of the step, not of the position",
        "logits.flatten(2)[:, :, i], noise[:, t]",
        "logits.flatten(2)[:, :, t], noise[:, t]",
        "test_base.py::test_samples_follow_the_distribution",
    ),
    (
        "noise is taken by position, not by step",
        "logits.flatten(2)[:, :, i], noise[:, t]",
        "logits.flatten(2)[:, :, i], noise[:, i]",
        "test_base.py::test_the_noise_is_in_generation_order",
    ),
    (
        "labels of a model without classes are ignored",
        "            self.refuse_labels(y)\n        else:",
        "            pass\n        else:",
        "test_pixelcnn.py::test_wrong_labels_are_refused_in_words",
    ),
)

MADE = _mutants(
    "made",
    (
        "the strict mask is not strict",
        "compare = torch.gt if strict else torch.ge",
        "compare = torch.ge",
        "test_made.py::test_each_output_sees_exactly_the_past",
    ),
    (
        "the masks are the wrong way round",
        "return compare(out_degrees[:, None], in_degrees[None, :])",
        "return compare(in_degrees[None, :], out_degrees[:, None])",
        "test_made.py::test_a_mask_is_a_comparison_of_degrees",
    ),
    (
        "the order is taken for the rank on the way out",
        "(self._over_levels(z) + self.bias)[:, self.rank]",
        "(self._over_levels(z) + self.bias)[:, self.order]",
        "test_made.py::test_each_output_sees_exactly_the_past",
    ),
    (
        "samples are put back by the order, not by the rank",
        "return x[:, self.rank].unflatten(1, self.shape)",
        "return x[:, self.order].unflatten(1, self.shape)",
        "test_made.py::test_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the mask is multiplied into the weights for good",
        "return F.linear(h, self.weight * self.mask, self.bias)",
        "self.weight.data *= self.mask\n        return F.linear(h, self.weight, self.bias)",
        "test_made.py::test_the_mask_leaves_the_weights_alone",
    ),
    (
        "no direct connections: narrow layers lose symbols",
        "(self.output(h) + self.direct(symbols))",
        "self.output(h)",
        "test_made.py::test_each_output_sees_exactly_the_past",
    ),
)

CAUSAL = _mutants(
    "causal",
    (
        "mask A is mask B: a symbol sees itself",
        "compare = torch.gt if strict else torch.ge",
        "compare = torch.ge",
        "test_causal.py::test_each_layer_sees_exactly_its_window",
    ),
    (
        "mask B is mask A: nothing gets through the centre",
        "compare = torch.gt if strict else torch.ge",
        "compare = torch.gt",
        "test_causal.py::test_the_mask_compares_row_column_and_channel_in_this_order",
    ),
    (
        "sub-pixels in the opposite order",
        "compare(outputs[:, None], inputs[None, :])",
        "compare(inputs[None, :], outputs[:, None])",
        "test_causal.py::test_each_layer_sees_exactly_its_window",
    ),
    (
        "sub-pixels are not told apart: all at a pixel see it whole",
        "compare(outputs[:, None], inputs[None, :])",
        "compare(outputs[:, None] + 9, inputs[None, :])",
        "test_causal.py::test_each_layer_sees_exactly_its_window",
    ),
    (
        "the mask lets the pixel to the right through",
        "< kernel**2 // 2",
        "< kernel**2 // 2 + 2",
        "test_causal.py::test_each_layer_sees_exactly_its_window",
    ),
    (
        "a pointwise layer mixes the channels",
        "seen = outputs[:, None] >= inputs[None, :]",
        "seen = outputs[:, None] >= 0 * inputs[None, :]",
        "test_causal.py::test_a_pointwise_layer_keeps_the_channels_apart",
    ),
    (
        "the mask is multiplied into the weights for good",
        "return F.conv2d(padded, self.weight * self.mask, self.bias)",
        "self.weight.data *= self.mask\n        return F.conv2d(padded, self.weight, self.bias)",
        "test_causal.py::test_the_mask_leaves_the_weights_alone",
    ),
    (
        "the strict vertical layer sees its own row",
        "below = -1 if self.strict else 0",
        "below = 0",
        "test_gated_pixelcnn.py::test_it_sees_exactly_the_past",
    ),
    (
        "smooth logits are read off with channels and numbers exchanged",
        ".unflatten(1, (self.colours, -1)).transpose(1, 2)",
        ".unflatten(1, (-1, self.colours))",
        "test_causal.py::test_smooth_logits_have_few_numbers_and_the_channels_in_place",
    ),
)

CACHE = _mutants(
    "causal",
    (
        "what is fed is taken for the pixel that is wanted",
        "self.pixel, self.fed = (row, column), self.pixel",
        "self.pixel = self.fed = (row, column)",
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "a row begins anew between its first pixel's sub-pixels",
        "return self.pixel[1] == 0 and self.pixel != self.fed",
        "return self.pixel[1] == 0",
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the row above is stored before its last pixel is known",
        "        if self.strict:\n            self._keep(h, cursor.fed)\n"
        "        if cursor.new_row and self.above:\n            self._next_row()\n",
        "        if cursor.new_row and self.above:\n            self._next_row()\n"
        "        if self.strict:\n            self._keep(h, cursor.fed)\n",
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the window is one pixel off",
        'window = memory["row"][:, column : column + self.left + 1]',
        'window = memory["row"].roll(1, 1)[:, column : column + self.left + 1]',
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the rows above are those above the row above",
        "        added = F.conv2d(rows, ",
        "        added = F.conv2d(rows.roll(1, 2), ",
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the vertical stack moves on a row too early",
        '        z = F.conv2d(memory["rows"], self.weight, self.bias)\n        if self.strict:\n'
        "            self._next_row()\n",
        "        if self.strict:\n            self._next_row()\n"
        '        z = F.conv2d(memory["rows"], self.weight, self.bias)\n',
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the crossing hands out the neighbour",
        'return self.memory["row"][:, :, :, column : column + 1]',
        'return self.memory["row"].roll(1, 3)[:, :, :, column : column + 1]',
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "the weights of a cached pass are not masked",
        "masked = self.weight * self.mask",
        "masked = self.weight",
        "test_pixelcnn.py::test_cached_sampling_equals_the_naive_loop_given_the_noise",
    ),
    (
        "a network that was interrupted stays in cached passes",
        "    finally:\n        for layer in layers:\n            layer.end()",
        "    finally:\n        pass",
        "test_causal.py::test_after_caching_the_network_works_on_images_again",
    ),
)

PIXELCNN = _mutants(
    "pixelcnn",
    (
        "the first layer has mask B",
        "MaskedConv(self.symbols.groups, features, first, strict=True, generator=generator)",
        "MaskedConv(self.symbols.groups, features, first, generator=generator)",
        "test_pixelcnn.py::test_pixelcnn_sees_what_its_windows_reach",
    ),
    (
        "the residual is added twice",
        "return h + self.after(",
        "return h + h + self.after(",
        "test_pixelcnn.py::test_residuals_are_added_once",
    ),
    (
        "the first layer's window has the size of the blocks'",
        "features, first, strict=True",
        "features, kernel, strict=True",
        "test_pixelcnn.py::test_pixelcnn_sees_what_its_windows_reach",
    ),
    (
        "the label is forgotten",
        "h = h + self.label(y)",
        "h = h + 0 * self.label(y)",
        "test_pixelcnn.py::test_labels_change_what_is_predicted",
    ),
)

GATED = _mutants(
    "gated_pixelcnn",
    (
        "every vertical layer shifts down a row: the blind spot of a well-known library",
        "kernel, strict=first, generator=generator)\n        self.horizontal",
        "max(kernel, 3), strict=True, generator=generator)\n        self.horizontal",
        "test_gated_pixelcnn.py::test_it_sees_exactly_the_past",
    ),
    (
        "the image reaches the horizontal stack unmasked",
        "self.horizontal = HorizontalConv(inputs, halves, kernel, strict=first, generator=generator)",
        "self.horizontal = HorizontalConv(inputs, halves, kernel, generator=generator)",
        "test_gated_pixelcnn.py::test_it_sees_exactly_the_past",
    ),
    (
        "the horizontal stack flows back into the vertical one",
        "return gate(s), z if self.first else h + z",
        "return gate(s) + z, z if self.first else h + z",
        "test_gated_pixelcnn.py::test_it_sees_exactly_the_past",
    ),
    (
        "no way from the vertical stack to the horizontal one",
        "t = t + self.crossing(self.link(s))",
        "t = t + 0 * self.crossing(self.link(s))",
        "test_gated_pixelcnn.py::test_it_sees_exactly_the_past",
    ),
    (
        "the residual is added twice",
        "z if self.first else h + z",
        "z if self.first else h + h + z",
        "test_gated_pixelcnn.py::test_residuals_are_added_once",
    ),
    (
        "the two halves of a gate are exchanged",
        "a, b = z.chunk(2, dim=1)",
        "b, a = z.chunk(2, dim=1)",
        "test_gated_pixelcnn.py::test_a_gate_is_tanh_times_sigmoid",
    ),
    (
        "the label goes through the vertical gates only",
        "s, t = s + for_s, t + for_t",
        "s = s + for_s",
        "test_gated_pixelcnn.py::test_the_label_goes_through_every_gate",
    ),
    (
        "the halves of the gate belong to the wrong channels",
        "halves = features.repeat(2)",
        "halves = features.repeat_interleave(2)",
        "test_gated_pixelcnn.py::test_it_sees_exactly_the_past",
    ),
)

MUTANTS = BASE + MADE + CAUSAL + CACHE + PIXELCNN + GATED
