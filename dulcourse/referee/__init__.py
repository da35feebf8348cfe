"""The referee: bits/dim as the length of a message that could really have been sent.

| module | what it holds |
|---|---|
| `respondent` | who answers: one method, every answer a claim |
| `code` | what an answer costs, in bits |
| `bitsback` | what the two protocols below share: a message in which some bits are got back |
| `autoregressive`, `flow`, `latent` | blind scoring of each family |
| `frozen`, `score` | what is declared before any draw; what comes out |
| `sampler`, `probe` | samples judged by the model's own conditionals; functions judged by values |
| `exam` | the order of things: frozen, then drawn, then asked, each image once, one party at a time |
| `edges` | from a paired difference to points |
| `diagnosis` | what went wrong, in words and a matrix |
| `public` | the same questions on examples that everybody has |
| `wire`, `serve` | the same questions through a socket |
| `secret` | where randomness comes from |

Nothing is imported here: `wire` must work where torch does not.
"""
