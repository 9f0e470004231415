"""The text of a completion: each mistake planted is found, and none invented."""

import pytest

from tests.helpers.doctor import mutate, write_completion, write_files
from tests.helpers.project import PROJECT
from tools.doctor.static import (
    GENERAL,
    NEEDED,
    bonus_evidence,
    static_findings,
    unfinished_modules,
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return write_completion(tmp_path_factory.mktemp("static") / "completion")


def found_in(folder, text, file="Autoencoder.py"):
    """Return the findings of a file of this text, without those of missing files."""
    write_files(folder, {file: text})
    seen = static_findings(folder)
    return [s for s in seen if s.finding.name != "file_missing" and s.file == file]


def names_in(folder, text, file="notes.py"):
    return [s.finding.name for s in found_in(folder, text, file)]


def test_this_project_is_all_right():
    assert static_findings(PROJECT) == []


def test_a_missing_file_is_one_finding(tmp_path):
    folder = write_completion(tmp_path / "completion")
    (folder / "diffusion.py").unlink()
    (seen,) = static_findings(folder)
    assert (seen.finding.name, seen.part) == ("file_missing", 4)
    assert unfinished_modules([seen]) == {"diffusion"}


def test_an_empty_folder_lacks_every_needed_file(tmp_path):
    assert {s.file for s in static_findings(tmp_path)} == set(NEEDED)


def test_a_missing_name_is_named(tmp_path):
    folder = write_completion(tmp_path / "completion")
    mutate(folder, "VarAutoencoder.py", "def VAE_loss_function(", "def loss_function(")
    (seen,) = static_findings(folder)
    assert (seen.finding.name, seen.part) == ("name_missing", 3)
    assert "VAE_loss_function" in seen.finding.seen


@pytest.mark.parametrize(
    "text",
    [
        "from models import Autoencoder",
        "from models import *",
        "Autoencoder = make()",
        "if True:\n    class Autoencoder: pass",
    ],
)
def test_a_name_may_be_made_in_any_way(text, tmp_path):
    assert found_in(tmp_path, text) == []


@pytest.mark.parametrize(
    "body",
    [
        "raise NotImplementedError",
        "raise NotImplementedError('write this')",
        "pass",
        "...",
        "'''Encode.'''",
        "'''Encode.'''\n        pass",
        "for x in y:\n            raise NotImplementedError()",
    ],
)
def test_a_blank_is_found(body, tmp_path):
    text = f"class Autoencoder:\n    def forward(self, x):\n        {body}\n"
    (seen,) = found_in(tmp_path, text)
    assert seen.finding.name == "not_implemented"
    assert seen.finding.seen.endswith("at Autoencoder.py:2")
    assert unfinished_modules([seen]) == {"Autoencoder"}


@pytest.mark.parametrize(
    "body",
    [
        "if x > 1:\n            raise NotImplementedError\n        return x",
        "return x",
        "try:\n            return x\n        except KeyError:\n            pass",
    ],
)
def test_what_was_written_is_no_blank(body, tmp_path):
    text = f"class Autoencoder:\n    def forward(self, x):\n        {body}\n"
    assert found_in(tmp_path, text) == []


def test_a_base_class_may_leave_a_function_open(tmp_path):
    text = """
class Base:
    def forward(self, x):
        raise NotImplementedError

class Autoencoder(Base):
    def forward(self, x):
        return x
"""
    assert found_in(tmp_path, text) == []


def test_a_callback_may_do_nothing(tmp_path):
    text = "class Autoencoder:\n    def on_epoch_end(self):\n        pass\n"
    assert found_in(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("root = '/home/somebody/flowers'", "absolute_path"),
        ("root = r'C:\\Users\\somebody'", "absolute_path"),
        ("root = 'D:/flowers'", "absolute_path"),
        ("root = f'/content/drive/{name}'", "absolute_path"),
        ("def f(root='/Users/somebody/x'): pass", "absolute_path"),
        ("model.cuda()", "cuda_only"),
        ("device = torch.device('cuda:0')", "cuda_only"),
        ("x = x.to('cuda')", "cuda_only"),
        ("x = torch.zeros(3, device='cuda')", "cuda_only"),
        ("with torch.autocast('cuda'):\n    pass", "cuda_only"),
        ("with autocast(device_type='cuda'):\n    pass", "cuda_only"),
        ("scaler = torch.cuda.amp.GradScaler()", "cuda_only"),
        ("print('\\u2705 done')", "print_symbol"),
        ("print(f'{loss} \\u2713')", "print_symbol"),
        ("W, H = 24", "number_unpacked"),
        ("layer = nn.Linear(128 * H / 4 * W / 4, 64)", "float_size"),
        ("def f(:", "syntax_error"),
        ("x = 1\n\tif x:", "syntax_error"),
        ("\0", "syntax_error"),
    ],
)
def test_each_mistake_is_found_by_its_name(text, name, tmp_path):
    assert names_in(tmp_path, text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "'''Run it as /home/you/x.'''",
        "root = './flowers'",
        "url = 'https://x.org/home/you'",
        "path = root + '/home/x'",
        "path = f'{root}/tmp/x'",
        "ratio = '24:24'",
        "device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "if torch.cuda.is_available():\n    model.cuda()",
        "scaler = GradScaler(enabled=device == 'cuda')",
        "with torch.autocast(device.type):\n    pass",
        "name = device.type == 'cuda'",
        "print('\\u8bad\\u7ec3\\u635f\\u5931')",  # Chinese, which the console has
        "note = '\\u2705'",
        "W, H = 24, 24",
        "W = H = 24",
        "layer = nn.Linear(128 * H // 4 * W // 4, 64)",
        "layer = nn.Linear(int(H / 4), 64)",
        "layer = nn.LeakyReLU(1 / 3)",
        "path = Path(a) / b",
    ],
)
def test_what_is_right_is_not_reported(text, tmp_path):
    assert names_in(tmp_path, text) == []


def test_a_layer_made_in_forward_is_found(tmp_path):
    text = """
class Autoencoder(nn.Module):
    def __init__(self):
        self.first = nn.Linear(2, 3)

    def forward(self, x):
        x = nn.ReLU()(self.first(x))
        return nn.Linear(3, 4)(x)
"""
    (seen,) = found_in(tmp_path, text)
    assert seen.finding.name == "layer_made_in_forward" and list(seen.lines) == [8]


def test_one_kind_of_mistake_is_reported_once_per_file(tmp_path):
    (seen,) = found_in(tmp_path, "a.cuda()\nb.cuda()\nc.cuda()", "net.py")
    assert seen.finding.seen == "a.cuda() at net.py:1, and 2 more"
    assert seen.part == GENERAL


def test_chinese_files_of_another_encoding_are_read(tmp_path):
    text = "# -*- coding: gbk -*-\nname = '\u82b1'\n"
    (tmp_path / "notes.py").write_bytes(text.encode("gbk"))
    assert names_in(tmp_path, "x = 1", "other.py") == []
    assert all(s.finding.name == "file_missing" for s in static_findings(tmp_path))


def test_evidence_for_the_bonus(ours, tmp_path):
    found = bonus_evidence(ours)
    assert "labels" in found["labels"] and "flow matching" in found["paradigm"]
    report = "# Report\n![a](vis/a.png)\n![b](vis/b.png)\n"
    plain = write_files(
        tmp_path, {"diffusion.py": "x = 1\n", "diffusion_report.md": report}
    )
    assert bonus_evidence(plain) == {"report": "diffusion_report.md (2 pictures)"}
    assert bonus_evidence(tmp_path / "nowhere") == {}
