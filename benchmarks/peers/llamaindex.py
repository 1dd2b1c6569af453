"""LlamaIndex's EmbeddingAdapterFinetuneEngine, fed with stored vectors through an embed model.

Its linear adapter must be square. Variants: ``linear`` is a rectangular one, made from the
package's BaseAdapter as its documentation shows for custom adapters, that starts from Procrustes;
``two_layer`` is the package's own TwoLayerNN, which may be rectangular but starts at random, with
the hidden size of the documentation. Both train for 20 epochs; all else is the engine's default:
AdamW with rate 2e-5, batches of 10 in order, the first positive of a query, no validation. That
rate is low for so few labels: ``tuned`` is ``linear`` with three rates, the best on the validation
queries kept. The engine has no such choice, it is made here.
"""

from __future__ import annotations

import torch
from llama_index.core.base.embeddings.base import (
    BaseEmbedding,
)
from llama_index.core.bridge.pydantic import (
    PrivateAttr,
)
from llama_index.embeddings.adapter import BaseAdapter
from llama_index.embeddings.adapter.utils import (
    TwoLayerNN,
)
from llama_index.finetuning import (
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
)

from benchmarks.peers.problem import FloatArray, Map, Problem, main, procrustes, validation

_EPOCHS = 20
_DEFAULT_RATE = 2e-5
_RATES = (_DEFAULT_RATE, 2e-4, 2e-3)
_HIDDEN = 1024


class StoredEmbedding(BaseEmbedding):  # type: ignore[misc]
    """An embed model whose texts are row numbers of stored vectors."""

    _queries: FloatArray = PrivateAttr()
    _corpus: FloatArray = PrivateAttr()

    def __init__(self, queries: FloatArray, corpus: FloatArray) -> None:
        super().__init__(model_name="stored vectors")
        self._queries, self._corpus = queries, corpus

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(self._queries[int(query)].tolist())

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(self._corpus[int(text)].tolist())

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class RectangularLayer(BaseAdapter):  # type: ignore[misc]
    """The package's LinearLayer with a start of any shape instead of the identity."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.linear.weight.data.copy_(weight)

    def forward(self, embed: torch.Tensor) -> torch.Tensor:
        """Adapt (n, d_large) queries."""
        return self.linear(embed)  # type: ignore[no-any-return]

    def get_config_dict(self) -> dict[str, int]:
        """Tell the shape, for the file that the engine writes at the end."""
        d_small, d_large = self.linear.weight.shape
        return {"in_features": d_large, "out_features": d_small}


def _dataset(problem: Problem) -> EmbeddingQAFinetuneDataset:
    """Judged pairs in the engine's form, the documents of each query by falling grade."""
    relevant: dict[str, list[str]] = {}
    for query_row, document_row, _ in sorted(
        problem.train_qrels[problem.train_qrels[:, 2] >= 1].tolist(),
        key=lambda judgement: (judgement[0], -judgement[2], judgement[1]),
    ):
        relevant.setdefault(str(query_row), []).append(str(document_row))
    documents = {document for found in relevant.values() for document in found}
    return EmbeddingQAFinetuneDataset(
        queries={query: query for query in relevant},
        corpus={document: document for document in documents},
        relevant_docs=relevant,
    )


def _fine_tune(problem: Problem, model: BaseAdapter, rate: float) -> Map:
    """Run the engine; it writes its own file into the current folder."""
    engine = EmbeddingAdapterFinetuneEngine(
        _dataset(problem),
        StoredEmbedding(problem.train_queries, problem.corpus),
        epochs=_EPOCHS,
        adapter_model=model,
        dim=problem.train_queries.shape[1],
        device="cpu",
        show_progress_bar=False,
        optimizer_params={"lr": rate},
    )
    engine.finetune()

    def adapt(queries: FloatArray) -> FloatArray:
        with torch.no_grad():
            return model(torch.from_numpy(queries)).numpy()  # type: ignore[no-any-return]

    return adapt


def fit(problem: Problem, variant: str) -> Map:
    """Fit one of the variants."""
    torch.manual_seed(0)
    if variant == "two_layer":
        d_large, d_small = problem.train_queries.shape[1], problem.corpus.shape[1]
        model = TwoLayerNN(d_large, _HIDDEN, d_small, bias=True)
        return _fine_tune(problem, model, _DEFAULT_RATE)
    start = torch.from_numpy(procrustes(problem))
    if variant == "linear":
        return _fine_tune(problem, RectangularLayer(start), _DEFAULT_RATE)
    validate = validation(problem)
    tuned = [_fine_tune(problem, RectangularLayer(start), rate) for rate in _RATES]
    return max(tuned, key=lambda adapt: validate(adapt(problem.val_queries)))


if __name__ == "__main__":
    main(fit)
