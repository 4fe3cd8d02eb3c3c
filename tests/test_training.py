"""Training on a few generated scenes: exact resume after kill -9, selection on decoded captions, refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from captioning import params
from captioning.checkpoints import Checkpoints
from captioning.decoding import decode_split, pixel_reader
from captioning.evaluation import EvaluateSettings
from captioning.examples import Examples
from captioning.generation import PLAIN_BEAM
from captioning.preprocessing import PreprocessSettings, write_examples
from captioning.records import PREDICT
from captioning.scoring import Scorer
from captioning.training import Training, TrainSettings
from captioning.training.schedules import Moment
from stages.evaluate import write_predictions

ROOT = Path(__file__).parents[1]
GREEDY = PLAIN_BEAM.replaced(beam_width=1)


def _settings(*, train_from: str | None = None, learning_rate: float = 5e-3, **changes: Any) -> TrainSettings:
    """Return settings of a small model; keys of a phase change the only phase."""
    values = params.read(ROOT / "params.yaml")["train"]
    values["encoder"] |= {"layer": "layer1"}
    values["decoder"] |= {
        "feature_width": 16,
        "embedding_width": 16,
        "attention_width": 16,
        "hidden_width": 32,
    }
    [phase] = values["phases"]
    phase |= {"epochs": 3, "batch_size": 4, "encoder": {"train_from": train_from, "learning_rate": 1e-3}}
    phase["optimizer"]["learning_rate"] = learning_rate
    for name, value in changes.items():
        (values if name in values else phase)[name] = value
    return TrainSettings.model_validate(values)


def _training(examples: Path, work: Path, **changes: Any) -> Training:
    return Training(examples, _settings(**changes), weights=ROOT / "weights", work=work)


@pytest.fixture(scope="module")
def whole(tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, pd.DataFrame]:
    """A training that nobody disturbed."""
    training = _training(tiny_examples, tmp_path_factory.mktemp("work"))
    return training, training.run()


def test_the_loss_falls_and_every_epoch_is_one_row(whole: tuple[Training, pd.DataFrame]):
    _, history = whole
    assert list(history["epoch"]) == [1, 2, 3]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] * 0.9
    assert {"val_loss", "val_bleu_1", "val_bleu_4"} <= set(history.columns)


def test_pictures_without_captions_are_captioned_into_cocos_results_file(
    whole: tuple[Training, pd.DataFrame], tiny_tables: Path, tiny_examples: Path, tmp_path: Path
):
    shutil.copytree(tiny_tables / "clean", tmp_path / "clean")
    placed = pd.read_parquet(tiny_tables / "splits" / "images.parquet")
    captions = pd.read_parquet(tmp_path / "clean" / "captions.parquet")
    silent = placed["image_id"].iloc[-3:]
    placed.loc[silent.index, "split"] = PREDICT
    (tmp_path / "splits").mkdir()
    placed.to_parquet(tmp_path / "splits" / "images.parquet", index=False)
    captions[~captions["image_id"].isin(silent)].to_parquet(
        tmp_path / "clean" / "captions.parquet", index=False
    )
    values = params.read(ROOT / "params.yaml")["preprocess"]
    settings = PreprocessSettings.model_validate(values)
    write_examples(
        tiny_tables / "raw", tmp_path / "clean", tmp_path / "splits", tmp_path / "examples", settings
    )
    evaluate_settings = EvaluateSettings.model_validate(params.read(ROOT / "params.yaml")["evaluate"])
    for examples, expected in ((tmp_path / "examples", [45, 46, 47]), (tiny_examples, [])):
        path = tmp_path / "predictions.json"
        write_predictions(whole[0].captioner, examples, evaluate_settings, path)
        rows = json.loads(path.read_text())
        assert [row["image_id"] for row in rows] == expected
        assert all(isinstance(row["caption"], str) for row in rows)


def test_the_best_epoch_by_decoded_bleu_4_is_kept(whole: tuple[Training, pd.DataFrame], tiny_examples: Path):
    training, history = whole
    val = Examples(tiny_examples, "val")
    hypotheses = decode_split(training.captioner, val, pixel_reader(val, torch.device("cpu")), GREEDY)
    scores, _ = Scorer(val.references(), ["bleu"]).score({key: own.text for key, own in hypotheses.items()})
    assert scores["bleu_4"] == pytest.approx(history["val_bleu_4"].max(), abs=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    whole: tuple[Training, pd.DataFrame], tiny_examples: Path, tmp_path: Path
):
    training, history = whole
    again = _training(tiny_examples, tmp_path / "again")
    pd.testing.assert_frame_equal(again.run(), history)
    for name, tensor in training.captioner.state_dict().items():
        assert torch.equal(tensor, again.captioner.state_dict()[name]), name
    other = _training(tiny_examples, tmp_path / "other", seed=1, epochs=1)
    assert other.fingerprint != training.fingerprint
    assert other.run()["train_loss"][0] != history["train_loss"][0]


SCRIPT = """
import os, sys
from pathlib import Path
os.nice(10)  # who reads what it says and kills it comes first
sys.path.insert(0, "tests")
import captioning.training.engine as training
training.SECONDS_BETWEEN_CHECKPOINTS = 0.0
import torch
torch.set_num_threads(int(sys.argv[3]))
from test_training import _training
save = training.Checkpoints.save
def save_and_tell(self, state):
    save(self, state)
    print(state["position"]["epoch"], state["position"]["step"], flush=True)
training.Checkpoints.save = save_and_tell
_training(Path(sys.argv[1]), Path(sys.argv[2])).run()
"""


def test_killed_at_any_moment_and_resumed_equals_uninterrupted(
    whole: tuple[Training, pd.DataFrame], tiny_examples: Path, tmp_path: Path
):
    training, history = whole
    arguments = [
        sys.executable,
        "-c",
        SCRIPT,
        str(tiny_examples),
        str(tmp_path),
        str(torch.get_num_threads()),
    ]
    for epoch in ("0", "1"):
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for (
                line
            ) in process.stdout:  # in the middle of the epoch, while the next checkpoint may be half written
                if line.split() > [epoch, "3"]:
                    break
            process.kill()
        assert process.returncode == -signal.SIGKILL, "the training was over before it was killed"
    resumed = _training(tiny_examples, tmp_path)
    assert list((tmp_path / "train" / resumed.fingerprint).glob("*.pt")), "nothing was saved before the kill"
    pd.testing.assert_frame_equal(resumed.run(), history)
    for name, tensor in training.captioner.state_dict().items():
        assert torch.equal(tensor, resumed.captioner.state_dict()[name]), name


SELDOM = SCRIPT.replace("SECONDS_BETWEEN_CHECKPOINTS = 0.0", "SECONDS_BETWEEN_CHECKPOINTS = 1e9")
TOLD_WHILE_SAVING = SELDOM.replace(
    "    save(self, state)\n", "    os.kill(os.getpid(), 15)\n    save(self, state)\n"
)


def test_told_to_end_while_it_saves_it_ends_once_all_is_saved(tiny_examples: Path, tmp_path: Path):
    arguments = [
        sys.executable,
        "-c",
        "import os\n" + TOLD_WHILE_SAVING,
        str(tiny_examples),
        str(tmp_path),
        "1",
    ]
    ended = subprocess.run(arguments, check=False, cwd=ROOT, capture_output=True, text=True)
    assert "told to end: saved at epoch 2, step 0; run again to go on" in ended.stderr
    assert ended.returncode == 128 + signal.SIGTERM
    [folder] = (tmp_path / "train").iterdir()
    state = Checkpoints(folder).load()
    assert state is not None and state["position"]["epoch"] == 1


def test_told_to_end_it_saves_and_ends_at_once_and_a_resume_equals_uninterrupted(
    whole: tuple[Training, pd.DataFrame], tiny_examples: Path, tmp_path: Path
):
    _, history = whole
    arguments = [
        sys.executable,
        "-c",
        SELDOM,
        str(tiny_examples),
        str(tmp_path),
        str(torch.get_num_threads()),
    ]
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["1", "0"]
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, errors
    if "told to end" in errors:  # else it was validating, and what is newest was saved already
        assert re.search(r"told to end: saved at epoch \d, step \d+; run again to go on", errors)
    pd.testing.assert_frame_equal(_training(tiny_examples, tmp_path).run(), history)


def test_a_torn_checkpoint_is_passed_over_for_the_one_before_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})
    checkpoints.save({"step": 2})
    assert checkpoints.load() == {"step": 2}
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    assert checkpoints.load() == {"step": 1}
    assert "checkpoint last.pt cannot be read" in capfd.readouterr().err


def test_a_resume_restores_the_random_state(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    torch.manual_seed(5)
    checkpoints.save({})
    expected = torch.rand(3)
    torch.manual_seed(6)
    checkpoints.load()
    assert torch.equal(torch.rand(3), expected)


def test_training_ends_when_bleu_4_stops_rising(tiny_examples: Path, tmp_path: Path):
    training = _training(tiny_examples, tmp_path, epochs=30, patience=1, learning_rate=1e-9)
    history = training.run()
    assert len(history) == 2, "with nothing learned the first epoch stays the best"


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_images(tiny_examples: Path, tmp_path: Path):
    training = _training(tiny_examples, tmp_path)
    with torch.no_grad():
        training.captioner.decoder.words.output_bias.fill_(float("nan"))
    with pytest.raises(
        ValueError, match=r"the loss is nan in epoch 1, step 1, images \['.*lower optimizer\.learning_rate"
    ):
        training.run()


def test_a_frozen_encoders_features_are_computed_once(tiny_examples: Path, tmp_path: Path):
    _training(tiny_examples, tmp_path, epochs=1).run()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    assert sorted(path.name.split("-")[0] for path in files) == ["train", "val"]
    for path, computed in files.items():
        os.utime(path, ns=(0, computed))
    other_decoder = {**_settings().decoder.model_dump(), "hidden_width": 24}
    _training(tiny_examples, tmp_path, epochs=1, decoder=other_decoder).run()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()} == files
    assert all(path.stat().st_atime_ns > 0 for path in files), "`captioning clean` goes by the last use"


def test_a_trainable_encoder_moves(tiny_examples: Path, tmp_path: Path):
    training = _training(tiny_examples, tmp_path, train_from="all", epochs=1)
    before = {name: value.clone() for name, value in training.captioner.encoder.named_parameters()}
    training.run()
    moved = [
        not torch.equal(before[name], value) for name, value in training.captioner.encoder.named_parameters()
    ]
    assert all(moved)


def test_each_epoch_is_reported_also_those_before_a_resume(tiny_examples: Path, tmp_path: Path):
    epochs: list[int] = []
    captions: list[int] = []
    stopped = _training(tiny_examples, tmp_path)

    def stop_in_the_second_epoch(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(stop_in_the_second_epoch)

    def note(epoch: int, scores: Mapping[str, float], some: Mapping[str, str]) -> None:
        assert {"val_bleu_4", "val_accuracy", "learning_rate"} <= set(scores)
        epochs.append(epoch)
        captions.append(len(some))

    _training(tiny_examples, tmp_path).run(note)
    assert epochs == [1, 2, 3]
    assert captions == [0, 0, 4], "captions of the epochs before the resume are there already"


SELF_CRITICAL = {"name": "self_critical", "num_samples": 3, "max_words": 12}
COLOURS = {
    "min_crop_share": 0.8,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.02,
    "flip": False,
}


def test_a_second_phase_begins_with_the_best_of_the_first(tiny_examples: Path, tmp_path: Path):
    first = _settings(epochs=2).phases[0].model_dump()
    second = first | {"objective": SELF_CRITICAL, "epochs": 1, "average_decay": 0.5}
    second["optimizer"] = first["optimizer"] | {"learning_rate": 1e-12}
    validation = {"generation": GREEDY, "metrics": ["bleu", "cider"], "select": "bleu_1"}
    training = _training(tiny_examples, tmp_path, phases=[first, second], validation=validation)
    history = training.run()
    assert list(history["phase"]) == [1, 1, 2]
    assert list(history["train_loss"].notna()) == [True, True, False]
    assert list(history["train_reward"].notna()) == [False, False, True]
    best = history["val_bleu_1"][:2].max()
    assert history["val_bleu_1"][2] == best, "an all but idle phase speaks as the best weights do"
    assert list(history["kept"]).index(1) == list(history["val_bleu_1"]).index(best)


def test_the_average_of_the_weights_is_short_at_first_and_is_what_is_validated(
    tiny_examples: Path, tmp_path: Path
):
    training = _training(tiny_examples, tmp_path, average_decay=0.2)
    phase, decoder = training.phase(0), training.captioner.decoder
    averages: dict[str, torch.Tensor] = {}
    for step, batch in enumerate(phase.batches(0, first_step=0)):
        phase.step(batch, Moment(step=step, steps_per_epoch=99, epochs=1, history=[]))
        decay = min(0.2, (1 + step) / (10 + step)) if step else 0.0
        for name, own in decoder.state_dict().items():
            averages[name] = decay * averages.get(name, own) + (1 - decay) * own
    assert step >= 3, "the decay changes between the first two steps and no more from the third on"
    last = {name: own.clone() for name, own in decoder.state_dict().items()}
    with phase.averaged():
        torch.testing.assert_close(dict(decoder.state_dict()), averages)
    torch.testing.assert_close(dict(decoder.state_dict()), last)


def test_training_ends_with_the_epoch_in_which_its_time_is_over(tiny_examples: Path, tmp_path: Path):
    assert len(_training(tiny_examples, tmp_path, max_hours=1e-9).run()) == 1


def test_training_ends_when_val_is_left_behind(tiny_examples: Path, tmp_path: Path):
    decoder = _settings().decoder.model_dump() | {"dropout": 0.0}
    changes = {"epochs": 20, "max_gap": 0.05, "patience": None, "learning_rate": 3e-2}
    training = _training(tiny_examples, tmp_path, decoder=decoder, **changes)
    history = training.run()
    gaps = list(history["val_loss"] - history["train_loss"])
    assert len(gaps) < 20
    assert gaps[-1] > 0.05
    assert all(gap <= 0.05 for gap in gaps[:-1])


@pytest.mark.parametrize(("views", "files"), [(None, ["val"]), (2, ["train", "train", "val"])])
def test_a_frozen_encoder_sees_changed_images_anew_or_in_a_stated_number_of_views(
    tiny_examples: Path, tmp_path: Path, views: int | None, files: list[str]
):
    history = _training(tiny_examples, tmp_path, augmentation={**COLOURS, "views": views}).run()
    assert len(history) == 3
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "features").iterdir()) == files


def test_augmentations_that_cannot_be_true_are_refused():
    with pytest.raises(ValueError, match=r"views \(2\) keeps features of a frozen encoder, but .* 'layer2'"):
        _settings(augmentation={**COLOURS, "views": 2}, train_from="layer2")
    with pytest.raises(
        ValueError, match=r"flip exchanges left and right .* which cached views cannot follow"
    ):
        _settings(augmentation={**COLOURS, "flip": True, "views": 2})


def test_a_score_that_is_not_measured_cannot_select(tiny_examples: Path, tmp_path: Path):
    validation = {"generation": GREEDY, "metrics": ["bleu"], "select": "cider"}
    with pytest.raises(
        ValueError, match=r"select: 'cider' is not among the scores of val \(bleu_1, .*add its"
    ):
        _training(tiny_examples, tmp_path, validation=validation).run()


def test_features_of_a_killed_run_are_kept_and_the_rest_is_computed(
    tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from captioning import features

    monkeypatch.setattr(features, "BATCH_SIZE", 4)
    monkeypatch.setattr(features, "BATCHES_BETWEEN_NOTES", 2)
    training = _training(tiny_examples, tmp_path)
    encoder, train = training.captioner.encoder.eval(), Examples(tiny_examples, "train")
    arguments = (encoder, train, tmp_path, training.captioner.device)
    seen: list[int] = []
    keep = encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    kill = encoder.register_forward_pre_hook(lambda *_: sys.exit() if len(seen) > 3 else None)
    with pytest.raises(SystemExit):
        features.cached_features(*arguments)
    kill.remove()
    assert not list(tmp_path.glob("*.npy")), "half a file is no cache"
    seen.clear()
    resumed = features.cached_features(*arguments)
    assert sum(seen) == len(train) - 2 * 4, "two batches were noted, the third was written but not noted"
    keep.remove()
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    np.testing.assert_array_equal(resumed, features.cached_features(*arguments))
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".partial", ".done"}]


def test_features_beyond_the_range_of_float16_are_refused(tiny_examples: Path, tmp_path: Path):
    training = _training(tiny_examples, tmp_path)
    with torch.no_grad():
        for parameter in training.captioner.encoder.parameters():
            parameter.mul_(100)
    with pytest.raises(ValueError, match=r"features of images 0 to 31 of train are not finite in float16"):
        training.run()
    assert not list((tmp_path / "features").glob("train-*"))


def test_a_resume_after_its_time_is_over_keeps_the_best_weights(tiny_examples: Path, tmp_path: Path):
    whole = _training(tiny_examples, tmp_path / "whole", max_hours=1e-9)
    history = whole.run()
    stopped = _training(tiny_examples, tmp_path / "stopped", max_hours=1e-9)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(stop)
    resumed = _training(tiny_examples, tmp_path / "stopped", max_hours=1e-9)
    pd.testing.assert_frame_equal(resumed.run(), history)
    for name, tensor in whole.captioner.state_dict().items():
        assert torch.equal(tensor, resumed.captioner.state_dict()[name]), name


def test_a_loss_that_is_not_finite_stops_self_critical_training_too(tiny_examples: Path, tmp_path: Path):
    training = _training(tiny_examples, tmp_path, objective=SELF_CRITICAL)
    with torch.no_grad():
        training.captioner.decoder.words.output_bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1, step 1, images"):
        training.run()


def test_a_stage_of_the_encoder_that_is_not_there_is_refused_before_any_work(
    tiny_examples: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=r"has no module 'layer9' on the way to its features; stages: all, "):
        _training(tiny_examples, tmp_path, train_from="layer9")


def test_a_gap_of_losses_cannot_end_a_phase_that_has_rewards():
    with pytest.raises(ValueError, match=r"max_gap \(0\.1\) compares losses, and self_critical has a reward"):
        _settings(objective=SELF_CRITICAL, max_gap=0.1)


def test_an_objective_that_does_not_suit_the_decoder_is_refused():
    silent = {
        "name": "show_and_tell",
        "cell": "lstm",
        "depth": 1,
        "image": "first_input",
        "batch_norm": False,
    }
    silent |= {"embedding_width": 8, "hidden_width": 8, "dropout": 0.0, "tied_embeddings": False}
    with pytest.raises(
        ValueError,
        match=r"attention_penalty is 1\.0, but the decoder show_and_tell returns no attention in train",
    ):
        _settings(
            decoder=silent,
            objective=_settings().phases[0].objective.model_dump() | {"attention_penalty": 1.0},
        )
    adaptive = {"name": "adaptive_attention", "embedding_width": 8, "attention_width": 8, "hidden_width": 8}
    with pytest.raises(
        ValueError, match=r"adaptive_attention returns .* look away .* which the penalty would"
    ):
        _settings(
            decoder=adaptive | {"dropout": 0.0, "tied_embeddings": False},
            objective=_settings().phases[0].objective.model_dump() | {"attention_penalty": 1.0},
        )
    drawing = _settings().decoder.model_dump() | {"name": "hard_attention", "lambda_r": 1.0, "lambda_e": 0.1}
    with pytest.raises(
        ValueError, match=r"phases\.0\.objective self_critical .* hard_attention also draws cells"
    ):
        _settings(decoder=drawing, objective=SELF_CRITICAL)


def test_a_plateau_of_a_score_that_val_does_not_have_is_refused_before_the_first_epoch(
    tiny_examples: Path, tmp_path: Path
):
    plateau = {"name": "plateau", "score": "val_cider", "decay": 0.5, "patience": 1}
    training = _training(tiny_examples, tmp_path, schedule=plateau)
    with pytest.raises(
        ValueError, match=r"schedule\.score: 'val_cider' is not among the scores of val \(val_loss, "
    ):
        training.run()
    assert not list((tmp_path / "features").iterdir()), "nothing was computed"


def test_of_a_score_that_is_better_when_lower_the_lowest_epoch_is_kept(tiny_examples: Path, tmp_path: Path):
    validation = _settings().validation.model_dump() | {"metrics": ["levenshtein"], "select": "levenshtein"}
    history = _training(tiny_examples, tmp_path, validation=validation, learning_rate=3e-2, epochs=4).run()
    kept = history["val_levenshtein"][history["kept"] == 1].item()
    assert kept == history["val_levenshtein"].min() < history["val_levenshtein"].max()
