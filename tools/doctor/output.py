"""An Examination as text, JSON, Markdown, and as the results that Gradescope reads.

Findings are explained by the rows of findings.toml, in English or in Chinese.
"""

import functools
import tomllib
from pathlib import Path

from tools.doctor.examination import BONUS, POINTS
from tools.doctor.static import GENERAL

ROWS = Path(__file__).with_name("findings.toml")
LANGUAGES = ("en", "zh")
WORDS = {
    "en": {
        GENERAL: "Other files",
        1: "Part 1, MLP autoencoder",
        2: "Part 2, convolutional autoencoder",
        3: "Part 3, variational autoencoder",
        4: "Part 4, diffusion",
        "title": "Examination of {}",
        "points": "{} of {} points",
        "by hand": "points by hand: nothing could be examined",
        "right": "all right: {} checks",
        "counts": "{} checks found nothing, {} found a mistake",
        "seen": "seen",
        "expected": "expected",
        "cause": "likely cause",
        "read": "read",
        "rules": "as",
        "not examined": "Not examined, look at it by hand",
        "left out": "checks left out, as a file is unfinished: {}",
        "sum": "Sum: {} of {} points, a proposal to the teacher",
        "bonus": "Bonus: 0 to {} points, by hand",
        "labels": "names of labels in diffusion.py",
        "paradigm": "words in diffusion.py",
        "report": "report",
        "no evidence": "no evidence found",
        "held": "Protections of this computer",
        "missing": "missing on this computer",
        "all held": "all",
        ":": ": ",
    },
    "zh": {
        GENERAL: "其他文件",
        1: "第一部分：MLP 自编码器",
        2: "第二部分：卷积自编码器",
        3: "第三部分：变分自编码器",
        4: "第四部分：扩散模型",
        "title": "检查 {}",
        "points": "{} / {} 分",
        "by hand": "分数由老师评定：没有可检查的内容",
        "right": "全部正确：共 {} 项检查",
        "counts": "{} 项检查没有发现问题，{} 项发现问题",
        "seen": "观察到",
        "expected": "应为",
        "cause": "可能原因",
        "read": "参考",
        "rules": "对应",
        "not examined": "未能检查，请人工查看",
        "left out": "因文件未完成而略去的检查：{} 项",
        "sum": "合计：{} / {} 分，供老师参考",
        "bonus": "附加分：0 到 {} 分，由老师评定",
        "labels": "diffusion.py 中的标签名称",
        "paradigm": "diffusion.py 中的用语",
        "report": "报告",
        "no evidence": "没有找到依据",
        "held": "本机的保护措施",
        "missing": "本机缺少",
        "all held": "全部具备",
        ":": "：",
    },
}
PROTECTIONS = {  # of sandbox/limits.py and supervisor.py
    "en": {
        "network": "a network without connections",
        "adoption": "an end to processes that stay behind",
        "writes": "writes refused by the system",
        "memory": "a limit of memory",
        "files": "a limit of file sizes",
        "processes": "a limit of processes",
        "seconds": "a limit of computing time",
    },
    "zh": {
        "network": "断开网络",
        "adoption": "结束遗留进程",
        "writes": "由系统禁止写入",
        "memory": "内存限制",
        "files": "文件大小限制",
        "processes": "进程数限制",
        "seconds": "计算时间限制",
    },
}


@functools.cache
def explanations():
    """Return {name of a finding: its row}, and "not_examined": {rule: reason}."""
    return tomllib.loads(ROWS.read_text("utf-8"))


def number(value):
    """Return points as text: 4.5, or 5."""
    return f"{value:g}"


def headline(part, words):
    """Return the name of a part with its points."""
    if part.number == GENERAL:
        return words[GENERAL]
    points = part.points()
    if points is None:
        return f"{words[part.number]}{words[':']}{words['by hand']}"
    shown = words["points"].format(number(points), POINTS[part.number])
    return f"{words[part.number]}{words[':']}{shown}"


# As plain types ----------------------------------------------------------------


def as_json(examination, lang="en"):
    """Return the examination as dictionaries, lists and texts."""
    score, most = examination.score(), sum(POINTS.values())
    return {
        "format": 1,
        "path": examination.path,
        "score": score,
        "max_score": most,
        "parts": [part_json(p, lang) for p in examination.parts.values()],
        "bonus": {"max_points": BONUS, "points": None, **examination.evidence},
        "protections": examination.held,
    }


def part_json(part, lang):
    """Return a part as plain types; part 0 holds the files of none, without points."""
    right, wrong, open_ones = part.counts()
    return {
        "part": part.number,
        "title": WORDS[lang][part.number],
        "points": part.points() if part.number in POINTS else None,
        "max_points": POINTS.get(part.number, 0),
        "checks": {"right": right, "wrong": wrong, "not_examined": open_ones},
        "findings": [
            {**explained(finding, lang), "checks": checks}
            for finding, checks in part.findings().items()
        ],
        "not_examined": [
            {"reason": reason, "checks": checks}
            for reason, checks in part.unexamined().items()
        ],
        "left_out": [check.name for check in part.left_out],
    }


def explained(finding, lang):
    """Return a finding with its row of findings.toml in a language."""
    row = explanations()[finding.name]
    return {**finding._asdict(), "rules": row["rules"], **row[lang]}


# As text -----------------------------------------------------------------------


def as_text(examination, lang="en"):
    """Return the examination as lines for a console; English ones are ASCII."""
    words = WORDS[lang]
    lines = [words["title"].format(examination.path)]
    for part in shown_parts(examination):
        lines += ["", headline(part, words), *indented(part_lines(part, lang))]
    lines += ["", *closing_lines(examination, lang)]
    text = "\n".join(lines)
    return text if lang != "en" else text.encode("ascii", "backslashreplace").decode()


def shown_parts(examination):
    """Return the parts, and the other files where something was found there."""
    parts = examination.parts
    last = [parts[GENERAL]] if parts[GENERAL].findings() else []
    return [*(parts[n] for n in POINTS), *last]


def indented(lines):
    """Return lines moved to the right."""
    return ["  " + line for line in lines]


def part_lines(part, lang):
    """Return what was found in a part, one line per fact."""
    words, (right, wrong, _) = WORDS[lang], part.counts()
    findings, lines = part.findings(), []
    if findings or wrong:
        lines.append(words["counts"].format(right, wrong))
    elif right:
        lines.append(words["right"].format(right))
    # One name may be seen in several ways.
    for name in dict.fromkeys(f.name for f in findings):
        same = [f for f in findings if f.name == name]
        lines += finding_lines(name, same, lang)
    if part.left_out:
        lines.append(words["left out"].format(len(part.left_out)))
    if open_ones := part.unexamined():
        lines.append(words["not examined"] + words[":"].rstrip())
        lines += [
            f"  {', '.join(checks)}{words[':']}{reason}"
            for reason, checks in open_ones.items()
        ]
    return lines


def finding_lines(name, findings, lang):
    """Return the lines of the findings of one name."""
    words, row = WORDS[lang], explanations()[name]
    rules = f" ({words['rules']} {', '.join(row['rules'])})" if row["rules"] else ""
    lines = [f"[{name}] {row[lang]['title']}{rules}"]
    for finding in findings:
        lines.append(f"  {words['seen']}{words[':']}{finding.seen}")
        lines.append(f"  {words['expected']}{words[':']}{finding.expected}")
    for key in ("cause", "read"):
        lines.append(f"  {words[key]}{words[':']}{row[lang][key]}")
    return lines


def closing_lines(examination, lang):
    """Return the sum, the evidence for the bonus, and the protections."""
    words, score = WORDS[lang], number(examination.score())
    lines = [words["sum"].format(score, sum(POINTS.values()))]
    lines.append(words["bonus"].format(BONUS))
    evidence = examination.evidence.items()
    lines += indented(f"{words[key]}{words[':']}{text}" for key, text in evidence)
    if not evidence:
        lines += indented([words["no evidence"]])
    if examination.held:
        names = PROTECTIONS[lang]
        lost = [names[key] for key, held in examination.held.items() if not held]
        shown = f"{words['missing']}{words[':']}{', '.join(lost)}" if lost else None
        lines.append(f"{words['held']}{words[':']}{shown or words['all held']}")
    return lines


# As Markdown -------------------------------------------------------------------


def as_markdown(examination, lang="en"):
    """Return the examination as a Markdown document."""
    words = WORDS[lang]
    lines = ["# " + escaped(words["title"].format(examination.path))]
    for part in shown_parts(examination):
        lines += ["", "## " + headline(part, words), ""]
        for line in part_lines(part, lang):
            depth = (len(line) - len(line.lstrip())) // 2
            lines.append("  " * depth + "- " + escaped(line.strip()))
    lines += [""]
    for line in closing_lines(examination, lang):
        lines.append("- " + escaped(line.strip()))
    return "\n".join(lines)


def escaped(text):
    """Return text in which Markdown finds no markup."""
    return "".join("\\" + c if c in "\\`*_<>#[]|" else c for c in text)


# For Gradescope ----------------------------------------------------------------


def as_gradescope(examination, lang="en"):
    """Return the content of the results.json that Gradescope's autograder reads.

    https://gradescope-autograders.readthedocs.io/en/latest/specs/
    """
    words = WORDS[lang]
    tests = []
    for part in shown_parts(examination):
        lines = [headline(part, words), *part_lines(part, lang)]
        graded = part.number in POINTS
        points = part.points() if graded else None
        tests.append(
            {
                "name": words[part.number],
                "score": points or 0.0,
                "max_score": float(POINTS.get(part.number, 0)),
                "output": "\n".join(lines),
                "visibility": "visible",
            }
        )
    return {
        "score": examination.score(),
        "output": "\n".join(closing_lines(examination, lang)),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }
