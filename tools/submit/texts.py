"""Every line that tools.submit prints, in English and in Chinese."""

LANGUAGES = ("en", "zh")

TEXTS = {  # key -> (English, Chinese), with the same fields in braces
    # What each requirement asks for.
    "M11": ("log of the MLPAE", "MLPAE 的训练日志"),
    "M12": ("final losses of the MLPAE", "MLPAE 最终损失"),
    "M19": ("AE by plain SGD against the MLPAE", "普通 SGD 的 AE 与 MLPAE 比较"),
    "M20": ("log of the AE by plain SGD", "普通 SGD 的 AE 训练日志"),
    "M22": ("losses of the AE", "AE 的损失"),
    "M24": ("log of the AE", "AE 的训练日志"),
    "M32": ("log of the VAE", "VAE 的训练日志"),
    "M33": ("losses of the VAE", "VAE 的损失"),
    "M40": ("log of the diffusion model", "扩散模型的训练日志"),
    "M46": ("the files of the starter kit", "代码框架的文件"),
    "M47": ("four trained models", "四个训练好的模型"),
    "M48": ("nine pictures", "九张图片"),
    "M49": ("five logs", "五个日志"),
    "M50": ("the report on diffusion", "扩散模型报告"),
    # How it stands, and what to do.
    "ok": ("ok", "通过"),
    "wrong": ("wrong", "不符"),
    "skipped": ("skipped", "跳过"),
    "line": ("{id:<4} {status:<8} {text}", "{id:<4} {status} {text}"),
    "titled": ("{title}: {text}", "{title}：{text}"),
    "remedy": ("{text}; run: {command}", "{text}；请运行：{command}"),
    "joined": ("; ", "；"),
    # Files.
    "present": ("files: {count}", "{count} 个文件"),
    "missing": ("{path} is missing", "缺少 {path}"),
    "empty": ("{path} is empty", "{path} 是空文件"),
    "needs": (
        "not checked: {path} is missing or unreadable",
        "未检查：缺少 {path}，或无法读取",
    ),
    # Logs.
    "unreadable": ("{path} cannot be read: {why}", "{path} 无法读取：{why}"),
    "no_text": (
        "{path} is neither UTF-8 nor UTF-16",
        "{path} 的编码既不是 UTF-8 也不是 UTF-16",
    ),
    "no_epochs": ("{path} has no line of an epoch", "{path} 中没有任何一轮的输出"),
    "bad_line": (
        "{path}, line {number}: {found!a} is not an epoch's line",
        "{path} 第 {number} 行 {found!a} 不是一轮训练的输出格式",
    ),
    "order": (
        "{path}, line {number}: epoch {found} where {wanted} belongs",
        "{path} 第 {number} 行是第 {found} 轮，应为第 {wanted} 轮",
    ),
    "unfinished": (
        "{path} ends at epoch {found} of {wanted}",
        "{path} 只到第 {found} 轮，共 {wanted} 轮",
    ),
    "rising": (
        "{path}: the train loss does not fall, {first:.5g} to {last:.5g}",
        "{path}：训练损失没有下降，从 {first:.5g} 到 {last:.5g}",
    ),
    "epochs": ("epochs: {count}", "共 {count} 轮"),
    # Thresholds.
    "losses": (
        "train {train:.5g} < {most_train:g} and validation {valid:.5g} < "
        "{most_valid:g} after {count} of at most {most} epochs",
        "第 {count} 轮（至多 {most} 轮）训练损失 {train:.5g} < {most_train:g}，"
        "验证损失 {valid:.5g} < {most_valid:g}",
    ),
    "too_high": (
        "{path}: train {train:.5g} and validation {valid:.5g} after {count} epochs; "
        "asked: < {most_train:g} and < {most_valid:g} within {most}",
        "{path}：第 {count} 轮训练损失 {train:.5g}，验证损失 {valid:.5g}；要求：{most} "
        "轮之内分别低于 {most_train:g} 和 {most_valid:g}",
    ),
    "too_many": (
        "{path} has {count} epochs; asked: at most {most}",
        "{path} 有 {count} 轮；要求：至多 {most} 轮",
    ),
    "too_few": (
        "{path} has {count} epochs; asked: {least}",
        "{path} 只有 {count} 轮；要求：{least} 轮",
    ),
    "above": (
        "{path}: train loss {train:.5g} after {least} epochs; asked: < {bound:g}",
        "{path}：第 {least} 轮训练损失 {train:.5g}；要求：低于 {bound:g}",
    ),
    "not_below_train": (
        "{path}: train loss {found:.5g} is not below the MLPAE's {other:.5g}",
        "{path}：训练损失 {found:.5g} 不低于 MLPAE 的 {other:.5g}",
    ),
    "not_below_valid": (
        "{path}: validation loss {found:.5g} is not below the MLPAE's {other:.5g}",
        "{path}：验证损失 {found:.5g} 不低于 MLPAE 的 {other:.5g}",
    ),
    "below": (
        "train {settled:.5g} < {bound:g} after {least} epochs; at the end train "
        "{train:.5g} < {other_train:.5g}, validation {valid:.5g} < {other_valid:.5g}",
        "第 {least} 轮训练损失 {settled:.5g} < {bound:g}；最后训练损失 {train:.5g} < "
        "{other_train:.5g}，验证损失 {valid:.5g} < {other_valid:.5g}",
    ),
    # Weights. `why` says it in the words of the loader.
    "damaged": ("{why}", "{path} 已损坏，或不是权重文件"),
    "code": ("{why}", "{path} 不只含有权重，为安全起见没有加载"),
    "foreign": ("{why}", "{path} 是其他模型的权重"),
    "misfit": ("{why}", "{path} 的参数名或形状与 {model} 不符"),
    "not_finite": ("{why}", "{path} 含有 NaN 或无穷大"),
    "sizes": (
        "{path} encodes {img_width} x {img_height} pixels in {encoding_dim} numbers; "
        "asked: 24 x 24 in 64",
        "{path} 把 {img_width} x {img_height} 的图像编码为 {encoding_dim} 维；要求："
        "24 x 24，64 维",
    ),
    "drawn": (
        "{path} was trained on {source}, not on photos",
        "{path} 不是用照片训练的（{source}）",
    ),
    "other_training": (
        "{path} is not of the training in {log}: loss {held:.6g} against {claimed:.6g}",
        "{path} 与 {log} 不是同一次训练：损失 {held:.6g} 与 {claimed:.6g} 不同",
    ),
    "not_reached": (
        "{path} has a validation loss of {found:.6g} on the photos, not {claimed:.6g}",
        "{path} 在验证照片上的损失是 {found:.6g}，不是 {claimed:.6g}",
    ),
    "reached": ("{model} reaches {found:.5g}", "{model} 验证损失 {found:.5g}"),
    "loads": ("{model} loads", "{model} 可以加载"),
    "no_photos": (
        "losses not recomputed: no photos in {path}",
        "没有重新计算损失：{path} 中没有照片",
    ),
    "other_photos": (
        "loss of {path} not recomputed: it was trained on other photos than these",
        "没有重新计算 {path} 的损失：它的训练照片与这里的不同",
    ),
    "no_metadata": (
        "loss of {path} not recomputed: the file does not tell its settings",
        "没有重新计算 {path} 的损失：文件中没有训练设置",
    ),
    # Pictures and the report.
    "no_picture": ("{path} is no picture: {why}", "{path} 已损坏，或不是图片"),
    "size": (
        "{path} has {width} x {height} pixels; ten images of 24 x 24 need at least "
        "{least}",
        "{path} 只有 {width} x {height} 像素；十张 24 x 24 的图像至少需要 {least}",
    ),
    "blank": (
        "{path} is nearly blank: {count} colours",
        "{path} 几乎是空白的：只有 {count} 种颜色",
    ),
    "links_nowhere": (
        "{path} shows {link}, which is missing",
        "{path} 引用的图片 {link} 不存在",
    ),
    "links_outside": (
        "{path} shows {link}, which is not part of the submission",
        "{path} 引用的图片 {link} 不在提交内容之中",
    ),
    "links_damaged": (
        "{path} shows {link}, which is no picture",
        "{path} 引用的 {link} 已损坏，或不是图片",
    ),
    "no_denoising": (
        "{path} shows no picture of the denoising process",
        "{path} 中没有去噪过程的图片",
    ),
    "pictures": ("{path}, pictures: {count}", "{path}，{count} 张图片"),
    "unseen": (
        "{path}: its pictures were not checked",
        "{path}：没有检查其中的图片",
    ),
    # The end.
    "all": ("all {count} requirements are met", "{count} 项要求全部满足"),
    "failed": (
        "{count} of {total} requirements not met ({names}); run the commands above",
        "{total} 项要求中有 {count} 项没有满足（{names}）；请运行上面列出的命令",
    ),
    "not_packed": (
        "{text}, or pack what there is with --force",
        "{text}，或用 --force 打包现有文件",
    ),
}


def text(key, lang, **values):
    """Return a text of TEXTS in one of LANGUAGES, its fields filled in."""
    return TEXTS[key][LANGUAGES.index(lang)].format(**values)
