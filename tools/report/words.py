"""The words of the report's tables and phrases: English -> another language."""

# Names of settings, samplers, species, operations and files are the same in both.
CHINESE = {
    # Sets of images and models.
    "default model": "默认模型",
    "default model at 64 x 64": "64 x 64 模型",
    "DDPM": "DDPM",
    "few-step model": "少步模型",
    "AE (part 2)": "AE（第 2 部分）",
    "VAE (part 3)": "VAE（第 3 部分）",
    "VAE at 64 x 64, 6 epochs": "64 x 64 的 VAE，6 轮",
    "AE (part 2), trained on three species": "AE（第 2 部分，只用三种花训练）",
    "VAE (part 3), trained on three species": "VAE（第 3 部分，只用三种花训练）",
    "validation photos": "验证集照片",
    "training photos, moved by a pixel": "训练照片，平移一个像素",
    "training photos, mirrored": "训练照片，左右翻转",
    "training photos, brightened": "训练照片，调亮",
    "training photos, darkened": "训练照片，调暗",
    "training photos, noisy": "训练照片，加噪声",
    # Headings of metrics.
    "images": "图片",
    "number": "张数",
    "kernel distance to validation photos": "到验证集照片的核距离",
    "Frechet distance to validation photos": "到验证集照片的 Frechet 距离",
    "extrapolated": "外推到无穷多张",
    "Frechet distance to all photos": "到全部照片的 Frechet 距离",
    "relative to the first row": "与第一行之比",
    "kernel distance to all photos": "到全部照片的核距离",
    "kernel distance": "核距离",
    "Frechet distance": "Frechet 距离",
    "recall at equal number": "等量召回率",
    "precision at equal number": "等量精确率",
    "classified as requested": "按要求的种类分类的比例",
    "copies by pixels": "按像素算的复制",
    "nearest by pixels": "按像素算的最近距离",
    "copies by features": "按特征算的复制",
    "nearest by features": "按特征算的最近距离",
    # Training time, samplers, few evaluations.
    "model": "模型",
    "minutes": "分钟",
    "NFE": "NFE",
    "recall": "召回率",
    "precision": "精确率",
    "as requested": "符合要求的种类",
    "limit": "限制",
    "sampler": "采样器",
    "steps": "步数",
    "change": "变化",
    "ms per image": "每张毫秒数",
    "speed-up": "加速倍数",
    "reference": "参照",
    "whole schedule": "完整的时间表",
    "at most {}": "至多 {}",
    "before": "重流之前",
    "after": "重流之后",
    # Settings, throughput, and how everything was made.
    "setting": "设置",
    "photos": "照片",
    "species": "种类",
    "parameters": "参数个数",
    "seed": "随机种子",
    "yes": "是",
    "no": "否",
    "default": "默认",
    "part of a step": "一步中的运算",
    "proportion of its time": "所占时间",
    "rest": "其余",
    "{} min": "{} 分钟",
    "{} ms": "{} 毫秒",
    "{} million": "{} 百万",
    ", with bfloat16 units": "，有 bfloat16 运算单元",
    ", without bfloat16 units": "，没有 bfloat16 运算单元",
    "{processor}; cores: {cores}; threads: {threads}; torch {torch}": (
        "{processor}；核心数 {cores}；线程数 {threads}；torch {torch}"
    ),
    "{sampler}, {steps} steps, NFE {nfe}, ": "{sampler}，{steps} 步，NFE {nfe}，",
    "autoguidance {:g}, ": "自引导强度 {:g}，",
    "no classifier-free guidance": "不用无分类器引导",
    "classifier-free guidance {:g} at sigma {}": "无分类器引导强度 {:g}，sigma 范围 {}",
    "{:g} and above": "{:g} 以上",
    "from {:g} to {:g}": "{:g} 到 {:g}",
    "step": "步骤",
    "duration": "用时",
    # Parts that were not made.
    'Left out, since files are missing ("Commands" says how to make them): ': (
        "下列部分因缺少文件而省略（“命令”一节写明怎样生成）："
    ),
    "{} (needs {})": "{}（需要 {}）",
    ", ": "、",
    "; ": "；",
    ".": "。",
}
LANGUAGES = {"en": {}, "zh": CHINESE}


def translator(language):
    """Return a function of an English phrase: the phrase in a language of LANGUAGES.

    A phrase without a row, such as the name of a sampler, stays as it is.
    """
    words = LANGUAGES[language]
    return lambda phrase: words.get(phrase, phrase)
