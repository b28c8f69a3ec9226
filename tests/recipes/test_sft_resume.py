"""SFT killed at every step and resumed is, to the bit, SFT that was let alone; signals; the end of a run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onepolicy.errors import CheckpointError, DataError
from onepolicy.recipes import grpo, sft
from onepolicy.run.config import EXIT_INTERRUPTED, to_json
from onepolicy.run.process import read_status
from onepolicy.run.run import Run

EVERYWHERE = [
    (1, "before log"),
    (1, "in save"),
    (2, "before save"),
    (2, "after save"),
    (3, "after log"),
    (4, "after sample"),
    (4, "after save"),
]


@pytest.mark.parametrize("fields", [{}, {"save_every": 2}, {"lora_rank": 2}], ids=["plain", "every second", "lora"])
def test_killed_at_every_step(fields, tiny_sft, resume_through, digests):
    """Weights, optimizer, place in the data, metrics and samples."""
    straight, killed = tiny_sft("straight", **fields), tiny_sft("killed", **fields)
    deaths = [death for death in EVERYWHERE if fields.get("save_every") != 2 or death not in EVERYWHERE[1:2]]
    report = sft.main(straight)
    again = resume_through(sft.main, killed, deaths)
    assert digests(straight.out) == digests(killed.out)
    assert again.metrics == report.metrics


def test_resuming_a_finished_run_changes_nothing(tiny_sft, digests):
    config = tiny_sft()
    sft.main(config)
    before = digests(config.out)
    assert sft.main(config, resume=Path(config.out)).metrics["sft/nll"] > 0
    assert digests(config.out) == before


def test_a_signal_saves_and_exits_with_its_own_code(tiny_sft, digests, monkeypatch, capsys):
    """SIGTERM in the second step: that step is finished, logged and saved, and the exit code says resume me."""
    config, straight = tiny_sft(save_every=0), tiny_sft("straight", save_every=0)
    sft.main(straight)
    with monkeypatch.context() as patch:
        log = Run.log

        def signalled(run, step, *rest):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            log(run, step, *rest)

        patch.setattr(Run, "log", signalled)
        with pytest.raises(SystemExit) as stop:
            sft.main(config)
    assert stop.value.code == EXIT_INTERRUPTED == 75
    assert f"onepolicy resume {config.out}" in capsys.readouterr().out
    assert read_status(Path(config.out)).state == "interrupted"
    assert [path.name for path in (Path(config.out) / "checkpoints").iterdir()] == ["step-2"]
    sft.main(config, resume=Path(config.out))
    assert digests(config.out) == digests(straight.out)


RUN = "import json, sys; from onepolicy.recipes import grpo; from onepolicy.run.config import from_json; "
RUN += "grpo.main(from_json(grpo.Config, json.loads(sys.argv[1])))"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, EXIT_INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_real_signals_to_a_real_process(number, code, tiny_grpo, reward_directory, digests):
    """A process of its own, shot in the middle of a rollout of a slow reward, goes on in this one."""
    fields = {"reward": "tiny_rewards:slow", "steps": 6, "save_every": 2, "eval_every": 0}
    straight, shot = tiny_grpo("straight", **fields), tiny_grpo("shot", **fields)
    environment = {**os.environ, "PYTHONPATH": str(reward_directory), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(to_json(shot))], env=environment)
    journal = Path(shot.out) / "metrics.jsonl"
    while process.poll() is None and not (journal.exists() and '"step": 3' in journal.read_text()):
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=240) == code
    steps = [int(path.name.partition("-")[2]) for path in (Path(shot.out) / "checkpoints").glob("step-?")]
    assert max(steps) == 2 if number == signal.SIGKILL else 3 <= max(steps) <= 4
    grpo.main(straight)
    grpo.main(shot, resume=Path(shot.out))
    assert digests(shot.out) == digests(straight.out)


def test_what_cannot_be_resumed(tiny_sft, tmp_path, kill_at):
    with pytest.raises(CheckpointError, match="is not a directory"):
        sft.main(tiny_sft(), resume=tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config.json: it is no run directory, or its creation was cut"):
        sft.main(tiny_sft(), resume=tmp_path / "half")
    (tmp_path / "half" / "config.json").write_text('{"recipe": "sft", "con')
    with pytest.raises(CheckpointError, match="damaged or half-written"):
        sft.main(tiny_sft(), resume=tmp_path / "half")


def test_a_flipped_bit_falls_back_to_the_checkpoint_before(tiny_sft, kill_at, digests):
    """It is said, and the end is the same: what was lost is done again."""
    config, straight = tiny_sft(), tiny_sft("straight")
    sft.main(straight)
    with kill_at(3, "after save"):
        sft.main(config)
    weights = Path(config.out) / "checkpoints" / "step-3" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 4
    weights.write_bytes(content)
    sft.main(config, resume=Path(config.out))
    assert "Checkpoint step-3 is damaged" in (Path(config.out) / "log.txt").read_text()
    assert "at step 2" in (Path(config.out) / "log.txt").read_text()
    assert digests(config.out) == digests(straight.out)


def test_other_data_than_it_began_with_is_refused(tiny_sft, tmp_path, kill_at):
    data = tmp_path / "talks.jsonl"
    rows = [json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) for n in range(8)]
    data.write_text("\n".join(rows))
    config = tiny_sft(data=str(data))
    with kill_at(2, "after save"):
        sft.main(config)
    data.write_text("\n".join(reversed(rows)))
    with pytest.raises(DataError, match=r"The data of data changed since .* began"):
        sft.main(config, resume=Path(config.out))
