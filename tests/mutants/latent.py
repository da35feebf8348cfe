"""Bugs of latent-variable models: a sign, an axis, an index, a mean where a sum belongs."""

from tests.mutants.harness import Mutant

__all__ = ["MUTANTS"]

BASE, DISTRIBUTIONS = "dulcourse/latent/base.py", "dulcourse/latent/distributions.py"
ESTIMATORS, BOUNDS = "dulcourse/latent/estimators.py", "dulcourse/latent/bounds.py"
GRADIENTS, INFERENCE = "dulcourse/latent/gradients.py", "dulcourse/latent/inference.py"
MIXTURE, LINEAR, VAE = (f"dulcourse/latent/{name}.py" for name in ("mixture", "linear_gaussian", "vae"))


def _mutants(file: str, *rows: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    """Rows of (what, old, new, test), the test named without its file, which is that of the module."""
    stem = file.rsplit("/", 1)[1]
    return tuple(
        Mutant(what, file, old, new, (f"tests/latent/test_{stem}::{test}",)) for what, old, new, test in rows
    )


MUTANTS: tuple[Mutant, ...] = (
    *_mutants(
        BASE,
        (
            "the divergence is rewarded",
            "return log_likelihood - beta * kl",
            "return log_likelihood + beta * kl",
            "test_elbo_and_log_weight_have_the_same_expectation",
        ),
        (
            "β weighs the likelihood, too",
            "return log_likelihood - beta * kl",
            "return beta * (log_likelihood - kl)",
            "test_beta_weighs_the_divergence_alone",
        ),
        (
            "the likelihood is a mean over the symbols, the divergence a sum",
            "return likelihood.log_prob(self.decode(z), x)",
            "return likelihood.log_prob(self.decode(z), x) / self.dims",
            "test_both_terms_are_sums_over_their_elements",
        ),
        (
            "log q of the noise lacks the log σ of the change of variables",
            "gaussian_log_prob(noise) - q.log_std.sum(1)",
            "gaussian_log_prob(noise)",
            "test_the_mean_weight_is_the_likelihood",
        ),
        (
            "log σ with the wrong sign in log q",
            "gaussian_log_prob(noise) - q.log_std.sum(1)",
            "gaussian_log_prob(noise) + q.log_std.sum(1)",
            "test_the_mean_weight_is_the_likelihood",
        ),
        (
            "log p of the noise in place of z",
            "return gaussian_log_prob(z) + self.log_likelihood(x, z) - log_q",
            "return gaussian_log_prob(noise) + self.log_likelihood(x, z) - log_q",
            "test_the_mean_weight_is_the_likelihood",
        ),
        (
            "weights multiply by q in place of dividing",
            "return log_joint(model, x, z) - proposal.log_prob(z)",
            "return log_joint(model, x, z) + proposal.log_prob(z)",
            "test_several_draws_an_image_keep_their_image",
        ),
        (
            "draws and images are paired in the wrong order",
            "x.expand(len(z), *x.shape).flatten(0, 1)",
            "x.repeat_interleave(len(z), 0)",
            "test_several_draws_an_image_keep_their_image",
        ),
        (
            "samples mix up levels and symbols",
            "logits = self.decode(self.noise(n, generator)).movedim(1, -1)",
            "logits = self.decode(self.noise(n, generator))",
            "test_samples_have_the_marginals_of_the_decoder",
        ),
        (
            "the loss is the bound itself",
            "return -model.elbo(x, model.noise(len(x), generator))",
            "return model.elbo(x, model.noise(len(x), generator))",
            "test_the_loss_is_minus_the_bound_at_fresh_noise",
        ),
    ),
    *_mutants(
        DISTRIBUTIONS,
        (
            "log σ is taken for a log-variance",
            "return self.mean + self.log_std.exp() * noise",
            "return self.mean + (0.5 * self.log_std).exp() * noise",
            "test_draws_have_the_moments_of_the_distribution",
        ),
        (
            "KL: σ in place of σ²",
            "(2 * log_std).exp() - 1",
            "log_std.exp() - 1",
            "test_divergences_are_those_of_torch",
        ),
        (
            "KL: wrong sign of log σ",
            "- 1).sum(-1) - log_std.sum(-1)",
            "- 1).sum(-1) + log_std.sum(-1)",
            "test_divergences_are_those_of_torch",
        ),
        (
            "KL: a mean over the latents",
            "- 1).sum(-1) - log_std.sum(-1)",
            "- 1).mean(-1) - log_std.mean(-1)",
            "test_divergences_are_those_of_torch",
        ),
        (
            "dense KL: the determinants the wrong way round",
            "+ other._log_det() - self._log_det()",
            "- other._log_det() + self._log_det()",
            "test_divergences_are_those_of_torch",
        ),
        (
            "a categorical draws one state too far",
            ">= cdf[..., :-1]).sum(-1)",
            ">= cdf[..., :-1]).sum(-1).add(1).clamp(max=cdf.shape[-1] - 1)",
            "test_a_categorical_cuts_the_unit_interval",
        ),
        (
            "the normal density without its constant",
            "z.square() + math.log(2 * math.pi)",
            "z.square()",
            "test_densities_are_those_of_torch",
        ),
    ),
    *_mutants(
        ESTIMATORS,
        (
            "the mean of logarithms in place of the logarithm of the mean",
            "return torch.logsumexp(log_w, 0) - math.log(len(log_w))",
            "return log_w.mean(0)",
            "test_the_expectation_rises_with_k_and_stays_below_the_truth",
        ),
        (
            "log K is forgotten",
            "return torch.logsumexp(log_w, 0) - math.log(len(log_w))",
            "return torch.logsumexp(log_w, 0)",
            "test_the_posterior_is_the_best_proposal",
        ),
        (
            "the mean leaves log space",
            "return torch.logsumexp(log_w, 0) - math.log(len(log_w))",
            "return log_w.exp().mean(0).log()",
            "test_a_summary_stays_in_log_space",
        ),
        (
            "prior sampling multiplies by the prior again",
            "summarise(log_likelihoods(model, x, z))",
            "summarise(log_joint(model, x, z))",
            "test_estimates_are_within_their_errors_of_the_truth",
        ),
        (
            "enumeration forgets the last state",
            "states = model.states\n",
            "states = model.states[:-1]\n",
            "test_enumeration_is_a_sum_over_all_states",
        ),
        (
            "one draw of the prior for all images",
            "model.prior.noise(generator, k, len(x))",
            "model.prior.noise(generator, k, 1).expand(k, len(x), -1)",
            "test_each_image_has_its_own_draws",
        ),
        (
            "the standard error is not divided by √K",
            "(variance / k).sqrt()",
            "variance.sqrt()",
            "test_a_summary_of_known_weights",
        ),
        (
            "the effective sample size of logarithms",
            "k / relative.square().mean(0)",
            "k / relative.mean(0)",
            "test_a_summary_of_known_weights",
        ),
    ),
    *_mutants(
        BOUNDS,
        (
            "IWAE: softmax of the loss",
            "torch.softmax(log_w.detach(), 0)",
            "torch.softmax(-log_w.detach(), 0)",
            "test_good_draws_weigh_more_than_bad_ones",
        ),
        (
            "IWAE: softmax over the images",
            "torch.softmax(log_w.detach(), 0)",
            "torch.softmax(log_w.detach(), 1)",
            "test_the_gradient_is_that_of_the_bound",
        ),
        (
            "IWAE: the weights are differentiated, too",
            "torch.softmax(log_w.detach(), 0)",
            "torch.softmax(log_w, 0)",
            "test_the_gradient_is_that_of_the_bound",
        ),
        (
            "IWAE: a separate KL term beside the weights",
            "return log_mean_exp(log_weights(model, x, q, q.from_noise(noise)))",
            "return log_mean_exp(log_weights(model, x, q, q.from_noise(noise))) - q.kl(model.prior)",
            "test_iwae_with_one_draw_is_the_sampled_elbo",
        ),
        (
            "IWAE: the mean of the log-weights",
            "return log_mean_exp(log_weights(model, x, q, q.from_noise(noise)))",
            "return log_weights(model, x, q, q.from_noise(noise)).mean(0)",
            "test_iwae_rises_with_k_towards_the_likelihood",
        ),
        (
            "the divergence of the prior from q",
            "- q.kl(model.prior)",
            "- model.prior.kl(q)",
            "test_the_derivations_differ_by_the_sampled_divergence",
        ),
        (
            "the entropy of q is forgotten",
            "return log_weights(model, x, q, z).mean(0)",
            "return log_weights(model, x, model.prior, z).mean(0)",
            "test_with_the_posterior_the_first_derivation_has_no_variance",
        ),
    ),
    *_mutants(
        GRADIENTS,
        (
            "the score function descends",
            "values + (fixed - baseline(fixed))",
            "values - (fixed - baseline(fixed))",
            "test_gradients_of_a_gaussian_are_unbiased",
        ),
        (
            "the baseline is added",
            "(fixed - baseline(fixed))",
            "(fixed + baseline(fixed))",
            "test_the_order_of_the_variances",
        ),
        (
            "the score function follows the draw as well",
            "z = q.from_noise(noise).detach()",
            "z = q.from_noise(noise)",
            "test_gradients_of_a_gaussian_are_unbiased",
        ),
        (
            "the baseline of a draw contains the draw itself",
            "(values.sum(0) - values) / (len(values) - 1)",
            "values.mean(0, keepdim=True).expand_as(values)",
            "test_gradients_of_a_gaussian_are_unbiased",
        ),
        (
            "the derivative of f itself is lost",
            "return (values + (fixed",
            "return (fixed + (fixed",
            "test_what_is_averaged_may_depend_on_the_parameters",
        ),
        (
            "a sum over the draws",
            "return f(q.from_noise(noise)).mean(0)",
            "return f(q.from_noise(noise)).sum(0)",
            "test_the_value_is_the_estimate_of_the_expectation",
        ),
        (
            "enumeration weighs all states alike",
            "q.log_prob(z).exp() * f(z)",
            "f(z) / len(z)",
            "test_enumeration_is_the_expectation_and_its_gradient",
        ),
    ),
    *_mutants(
        INFERENCE,
        (
            "the worst q of each x",
            "loss = -elbo_by_kl(model, x, q, z).sum()",
            "loss = elbo_by_kl(model, x, q, z).sum()",
            "test_each_q_gains_on_the_encoders",
        ),
        (
            "dropout stays on",
            "with evaluating(model):",
            "if True:",
            "test_dropout_is_off_while_it_searches",
        ),
        (
            "what comes back can still be differentiated",
            "*(t.detach() for t in free)",
            "*free",
            "test_the_model_is_left_alone",
        ),
    ),
    *_mutants(
        MIXTURE,
        (
            "a table normalised over the components",
            "log_p = torch.log_softmax(self.table, 1).flatten(1)",
            "log_p = torch.log_softmax(self.table, 0).flatten(1)",
            "test_the_likelihood_is_a_product_over_the_symbols",
        ),
        (
            "the posterior forgets the prior",
            "return Categorical(self.prior.log_probs + self._log_likelihoods(x))",
            "return Categorical(self._log_likelihoods(x))",
            "test_the_posterior_is_bayes_rule",
        ),
        (
            "unnormalised weights of the components",
            "return Categorical(self.prior.log_probs + self._log_likelihoods(x))",
            "return Categorical(self.weights_logits + self._log_likelihoods(x))",
            "test_the_probabilities_of_all_images_sum_to_one",
        ),
        (
            "samples of one component",
            "logits = self.table[z].movedim(1, -1)",
            "logits = self.table[z * 0].movedim(1, -1)",
            "test_samples_follow_the_distribution",
        ),
        (
            "EM without responsibilities",
            "r = posterior.log_probs.exp()",
            "r = torch.ones_like(posterior.logits)",
            "test_it_finds_the_components_that_made_the_data",
        ),
        (
            "EM leaves the weights of the components alone",
            "        model.weights_logits.copy_(_finite_log(r.sum(0)))\n",
            "",
            "test_the_maximisation_step_maximises_the_bound",
        ),
        (
            "EM reports a sum",
            "torch.logsumexp(posterior.logits, 1).mean()",
            "torch.logsumexp(posterior.logits, 1).sum()",
            "test_expectation_maximisation_reports_the_likelihood_before_the_step",
        ),
    ),
    *_mutants(
        LINEAR,
        (
            "noise of variance s in the marginal",
            "noise = self.noise_std**2 * torch.eye",
            "noise = self.noise_std * torch.eye",
            "test_log_prob_is_the_marginal_density",
        ),
        (
            "the posterior mean lacks 1/s²",
            "@ self.weight @ covariance / self.noise_std**2",
            "@ self.weight @ covariance",
            "test_bayes_rule_holds_at_every_z",
        ),
        (
            "the posterior precision lacks the prior's",
            "torch.eye(self.latents).to(self.weight) + self.weight.T",
            "0 * torch.eye(self.latents).to(self.weight) + self.weight.T",
            "test_bayes_rule_holds_at_every_z",
        ),
        (
            "the best diagonal has the marginal variances",
            "-0.5 * self._precision().diagonal().log().expand_as(mean)",
            "0.5 * self._precision().inverse().diagonal().log().expand_as(mean)",
            "test_the_best_diagonal_is_the_best",
        ),
        (
            "the ELBO forgets the spread of q",
            "self._log_density(residual + spread)",
            "self._log_density(residual)",
            "test_the_elbo_is_the_likelihood_minus_the_divergence_from_the_posterior",
        ),
        (
            "the fit takes the smallest eigenvectors",
            "vectors[:, -latents:]",
            "vectors[:, :latents]",
            "test_the_fit_is_the_maximum_of_the_likelihood",
        ),
        (
            "the fit keeps the noise in the weights",
            "(largest - rest.mean()).clamp(min=0)",
            "largest",
            "test_the_fit_is_the_maximum_of_the_likelihood",
        ),
    ),
    *_mutants(
        VAE,
        (
            "mean and log σ are swapped",
            "return mean, bounded(raw)",
            "return raw, bounded(mean)",
            "test_the_second_half_of_the_encoder_is_the_log_std",
        ),
        (
            "log σ squeezed by a tanh",
            "return LOWEST + F.softplus(below - LOWEST)",
            "return -3.5 + 5.5 * torch.tanh(raw)",
            "test_a_small_log_std_passes_unchanged",
        ),
        (
            "log σ has no upper end",
            "below = HIGHEST - F.softplus(HIGHEST - raw)",
            "below = raw",
            "test_no_log_std_is_extreme_and_none_is_stuck",
        ),
        (
            "outputs are split by symbol first",
            "unflatten(1, (self.outputs, self.shape[0]))",
            "unflatten(1, (self.shape[0], self.outputs)).transpose(1, 2).flip(1)",
            "test_cosines_are_those_of_the_level",
        ),
        (
            "the bias of the levels is forgotten",
            "return outputs + self.bias",
            "return outputs",
            "test_smooth_levels_leave_every_softmax_within_reach",
        ),
        (
            "activity is measured within an image",
            "model.encode(x)[0].var(0, correction=0)",
            "model.encode(x)[0].var(1, correction=0)",
            "test_active_units_are_those_whose_mean_moves",
        ),
        (
            "activity is that of the spread",
            "model.encode(x)[0].var",
            "model.encode(x)[1].var",
            "test_active_units_are_those_whose_mean_moves",
        ),
        (
            "the first weights come from torch's own generator",
            "uniform_(-1, 1, generator=generator)",
            "uniform_(-1, 1)",
            "test_the_first_weights_come_from_the_generator",
        ),
    ),
)
