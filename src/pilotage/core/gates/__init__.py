"""Evidence of a rollout that may be looked at as often as one likes.

Every test here bets against a null hypothesis about the candidate. What the bets have won is an
e-value: where the null is true its expectation is at most 1 at any moment, so that it exceeds
``1 / alpha`` with probability ``alpha`` at most, whenever and however often somebody looks (Ville's
inequality). Nothing has to be corrected for looking.

What the tests rest on is the coin alone: each unit (a session, a user or a request) is dealt to the
candidate with a known probability, whatever else happens. Base rates may drift, load may come in
waves and outages may hit both arms; a unit counts once per metric, with its first event.

All states are counts (:class:`Split` of numbers or sketches, by the weight in force), so they merge
by adding, in any order, and whoever holds the counts can compute the evidence again.

``events`` tests shares of bad units, ``ranks`` the distribution of a number, ``means`` the mean of
a bounded one, ``ratio`` whether the coin was fair; ``power`` says how long it will take.
"""
