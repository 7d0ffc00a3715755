"""How good a ranking is, as the field counts it (trec_eval's definitions)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CUT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Means over questions, each in [0, 1]: is the first right; how many of the right ones are among the first ten; one
    over the rank of the first right one; normalised discounted cumulative gain with the grades as gains."""

    hit_at_1: float = 0.0
    recall_at_10: float = 0.0
    mrr_at_10: float = 0.0
    ndcg_at_10: float = 0.0

    def to_json(self) -> dict[str, float]:
        return {
            "hit@1": round(self.hit_at_1, 4),
            "recall@10": round(self.recall_at_10, 4),
            "mrr@10": round(self.mrr_at_10, 4),
            "ndcg@10": round(self.ndcg_at_10, 4),
        }


def quality(ranked: Sequence[str], relevant: Mapping[str, float]) -> Quality:
    """Of one question: ids best first, and the grades of the relevant ones (at least one, all above 0)."""
    top = ranked[:CUT]
    ranks = [rank for rank, one in enumerate(top, 1) if one in relevant]
    gain = sum(relevant[top[rank - 1]] / math.log2(rank + 1) for rank in ranks)
    ideal = sorted(relevant.values(), reverse=True)[:CUT]
    return Quality(
        hit_at_1=float(bool(ranks) and ranks[0] == 1),
        recall_at_10=len(ranks) / len(relevant),
        mrr_at_10=1 / ranks[0] if ranks else 0.0,
        ndcg_at_10=gain / sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ideal, 1)),
    )


def mean(qualities: Sequence[Quality]) -> Quality:
    """The mean over questions; zeros for none."""
    n = max(len(qualities), 1)
    return Quality(
        hit_at_1=sum(q.hit_at_1 for q in qualities) / n,
        recall_at_10=sum(q.recall_at_10 for q in qualities) / n,
        mrr_at_10=sum(q.mrr_at_10 for q in qualities) / n,
        ndcg_at_10=sum(q.ndcg_at_10 for q in qualities) / n,
    )
