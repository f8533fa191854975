"""The weights of the best epoch so far, kept beside a run's checkpoints and safe against a kill at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from domains.errors import ModelError, StorageError
from recipes.objective import Objective


class Best:
    """`folder/best.json` names a file of weights; the pointer moves only when that file is whole.

    Only trained parameters are kept: with LoRA that is a hundredth of the encoder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self) -> dict[str, Any] | None:
        """Step, epoch and score of the best so far; None before the first."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "best.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelError(f"best.json cannot be read ({error.__class__.__name__})", where=self.folder) from None
        return found

    def offer(self, objective: Objective, score: float, step: int, epoch: float) -> bool:
        """Keep the weights if `score` (lower is better) is the least so far. Returns whether. Raises StorageError.

        A run resumed before the step of the best offers the same weights again, which changes nothing.
        """
        before = self.record()
        if before is not None and not score < before["score"]:
            return False
        trained = {
            name: parameter.detach().cpu().contiguous().clone()
            for name, parameter in objective.named_parameters()
            if parameter.requires_grad
        }
        name = f"step_{step:08d}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(trained, self.folder / f"{name}.tmp")
            os.replace(self.folder / f"{name}.tmp", self.folder / name)
            said = json.dumps({"step": step, "epoch": round(epoch, 4), "score": score, "weights": name}, indent=2)
            (self.folder / "best.json.tmp").write_text(said + "\n", encoding="utf-8")
            os.replace(self.folder / "best.json.tmp", self.folder / "best.json")
            for old in self.folder.glob("step_*"):
                if old.name != name:
                    old.unlink()
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StorageError(f"the best weights cannot be written ({reason})", where=self.folder) from None
        return True

    def forget_after(self, step: int) -> None:
        """Where the best is of a later step than this one, to which the run goes back, there is none. Raises StorageError."""
        found = self.record()
        try:
            if found is not None and found["step"] > step:
                (self.folder / "best.json").unlink()
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=self.folder) from None

    def load(self, objective: Objective) -> dict[str, Any]:
        """Put the best weights into `objective` and return their record. Raises ModelError."""
        found = self.record()
        if found is None:
            raise ModelError("no epoch was validated", where=self.folder, do="Run it again with --overwrite")
        try:
            weights = load_file(self.folder / found["weights"])
        except (OSError, SafetensorError) as error:
            what = f"the best weights cannot be read ({error.__class__.__name__})"
            raise ModelError(what, where=self.folder, do="Run it again with --overwrite") from None
        missing = {name for name, parameter in objective.named_parameters() if parameter.requires_grad} - set(weights)
        if missing or objective.load_state_dict(weights, strict=False).unexpected_keys:
            raise ModelError(
                "the best weights do not fit this run", where=self.folder, do="Run it again with --overwrite"
            )
        return found
