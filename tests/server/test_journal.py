import os
import sqlite3
from pathlib import Path

import pytest

from common.errors import EXIT_STATE, ConfigError, LocalFault
from server.journal import FORMAT, Journal


def test_a_folder_in_use_is_refused_and_its_process_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ConfigError, match=f"is in use by another fed-server.*process {os.getpid()}") as caught:
        Journal(tmp_path)
    assert caught.value.exit_code == EXIT_STATE
    journal.close()
    Journal(tmp_path).close()


def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(
        ConfigError, match=f"newer version.*expected format {FORMAT} or older, got {FORMAT + 1}"
    ) as caught:
        Journal(tmp_path)
    assert caught.value.exit_code == EXIT_STATE
    with pytest.raises(ConfigError, match="newer version"):  # the lock was given back
        Journal(tmp_path)


def test_a_folder_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    wanted = [tuple(row) for row in journal.rows("PRAGMA table_info(agents)")]
    journal.write("INSERT INTO agents(run, agent, prepared) VALUES ('r', 'a', x'01')")
    journal.close()
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.executescript("ALTER TABLE agents DROP COLUMN described; PRAGMA user_version = 1")
    db.close()
    journal = Journal(tmp_path)
    assert [tuple(row) for row in journal.rows("PRAGMA table_info(agents)")] == wanted
    assert [row["agent"] for row in journal.rows("SELECT agent FROM agents")] == ["a"]
    assert tuple(journal.row("PRAGMA user_version") or ()) == (FORMAT,)
    journal.close()


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database, but long enough to be one" * 100)
    with pytest.raises(ConfigError, match="cannot use the journal") as caught:
        Journal(tmp_path)
    assert caught.value.exit_code == EXIT_STATE


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write state folder") as caught:
        Journal(tmp_path / "file" / "state")
    assert caught.value.exit_code == EXIT_STATE


def test_a_full_disk_is_said_and_nothing_of_the_commit_happens(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save_host("h", "i", b"hello", 1.0)
    (pages,) = journal.row("PRAGMA page_count") or (0,)
    journal.row(f"PRAGMA max_page_count = {pages}")

    def save_both() -> None:
        with journal.commit():
            journal.save_host("h", "i", b"other", 2.0)
            journal.save_host("large", "i", bytes(1 << 16), 2.0)

    with pytest.raises(LocalFault, match="database or disk is full; free space on that disk"):
        save_both()
    assert journal.hosts() == [("h", "i", b"hello", 1.0)]
    journal.close()


def test_nested_commits_are_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def fail_afterwards() -> None:
        with journal.commit():
            with journal.commit():
                journal.save_host("h", "i", b"hello", 1.0)
            raise RuntimeError("afterwards")

    with pytest.raises(RuntimeError, match="afterwards"):
        fail_afterwards()
    assert journal.hosts() == []
    with journal.commit():
        journal.save_host("h", "i", b"hello", 1.0)
    journal.close()
    again = Journal(tmp_path)
    assert again.hosts() == [("h", "i", b"hello", 1.0)]
    again.close()
