"""One long csv of everything that is known per subject, piece and channel, for R, JASP and mixed models."""

from __future__ import annotations

import csv
import io

from tasks.eeg.table import GroupConfig, Table

COLUMNS = (
    "model", "variant", "noise_level", "subject", "piece", "repetition", "channel", "in_tests", "r_full", "r_reduced",
    "delta_r", "delta_r_null_mean",
)  # fmt: skip


def long_csv(config: GroupConfig, table: Table) -> str:
    """One row per condition, subject, piece and channel.

    Repetitions of a piece share one r (their sums are pooled before it is computed): `repetition` says ``pooled``.
    `in_tests` is false for channels that another subject lacks. `delta_r_null_mean` is the mean over permutations of
    delta_r, which is itself a mean over pieces: it is the same for all pieces of a subject. It is empty where the model
    is not tested, and for channels that are in no test. Where groups of subjects are compared, a last column `group`
    has each subject's value of that column of the table of participants (empty where it has none).
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    asked = config.participants
    writer.writerow(COLUMNS if asked is None else (*COLUMNS, "group"))
    model = config.model.name
    expected = None if table.null is None else table.null.mean(axis=1)
    common = {channel: place for place, channel in enumerate(table.channels)}
    for number, condition in enumerate(config.conditions):
        for place, (subject, fits) in enumerate(zip(table.subjects, table.fits, strict=True)):
            fit = fits[number]
            last = () if asked is None else (asked.values.get(subject, ""),)
            head = (model, condition.variant, repr(condition.noise_level), subject)
            for row, piece in enumerate(fit.pieces):
                for column, channel in enumerate(fit.channels):
                    full, reduced = float(fit.r_full[row, column]), float(fit.r_reduced[row, column])
                    tested = channel in common
                    null = (
                        "" if expected is None or not tested else repr(float(expected[place, number, common[channel]]))
                    )
                    found = (repr(full), repr(reduced), repr(full - reduced), null)
                    writer.writerow((*head, piece, "pooled", channel, str(tested).lower(), *found, *last))
    return stream.getvalue()
