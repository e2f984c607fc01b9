import pytest
from pydantic import ValidationError

from tasks.audio.config import CorpusConfig, DataSet, RenderConfig, SplitConfig


@pytest.mark.parametrize(
    "values", [{"tempo_bpm": (120, 80)}, {"tempo_bpm": (0, 80)}, {"decay_s": (-1, 1)}, {"harmonics": 0}]
)
def test_impossible_renderings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RenderConfig.model_validate(values)


def test_a_test_set_must_be_left() -> None:
    with pytest.raises(ValidationError, match="leave tunes for test"):
        SplitConfig(train=0.8, dev=0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "audio"}, "needs a folder"),
        ({"source": "chorales", "path": "x"}, "come with music21"),
        ({"source": "audio", "path": "x", "split_by": "tune"}, "does not fit"),
        ({"source": "midi", "path": "x", "split_by": "recording"}, "does not fit"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSet.model_validate(values)


def test_a_dumped_data_set_is_read_back() -> None:
    dataset = DataSet(source="audio", path="x", split="test")
    dumped = {
        "role": "stimuli",
        "dataset": dataset.model_dump(mode="json"),
        "seed": 0,
        "split": SplitConfig().model_dump(),
    }
    assert CorpusConfig.model_validate(dumped).dataset == dataset
    assert dataset.split_by == "recording"
