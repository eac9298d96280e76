"""Rules of ``spec.publish``, enforced by the API server.

Invariant: what the hub or the volume would refuse is refused at once: publishing comes when everything is trained,
measured and over. Until when it may be edited is a rule of the whole resource (``api.rules``).
"""

from __future__ import annotations

from rft_operator.api.cel import FORBIDDEN, IS_HUB, REQUIRED, Path, Rule, only_hub, uris

PUBLISH_RULES: dict[Path, list[Rule]] = {
    ("spec", "publish"): [
        Rule(
            expression=f"!({IS_HUB}) || has(self.secretRef)",
            message="the hub takes a model from nobody without a token; name a Secret that holds one",
            field=".secretRef",
            reason=REQUIRED,
        ),
        only_hub("secretRef", "only the hub (hf://) needs a token; remove it"),
        Rule(
            expression=f"self.private || {IS_HUB}",
            message="only a repository of the hub (hf://) is private or not; remove it",
            field=".private",
            reason=FORBIDDEN,
        ),
    ],
    ("spec", "publish", "uri"): [
        *uris("hf", "pvc"),
        Rule(
            expression="!self.matches('^hf://[^/]+/[^/]+/.*$')",
            message="a model is published as a whole repository; write hf://organisation/name",
        ),
        Rule(
            expression="!self.matches('^hf://[-A-Za-z0-9_.]+/[-A-Za-z0-9_.]+$') || "
            "(self.matches('^hf://[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?/"
            "[A-Za-z0-9_]([-A-Za-z0-9_.]{0,94}[A-Za-z0-9_])?$') && "
            "!self.contains('--') && !self.contains('..') && !self.endsWith('.git'))",
            message='the hub takes no such name: at most 96 characters, no "-" or "." at an end, no "--", no "..", '
            "no .git; choose another one",
        ),
        Rule(
            expression="!self.matches('^pvc://[^/]+/(.*/)?[.][.](/.*)?$')",
            message='a path with ".." may leave the volume; write it without',
        ),
    ],
}
