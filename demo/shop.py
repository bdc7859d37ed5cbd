"""A small made-up shop whose taste lives in its content: texts, pictures, sounds and clips of six themes.

Every user loves one or two themes and finds items by theme, not by popularity, so a pipeline that reads content
right beats popularity and a wrong one does not. Some items lack modalities, some files are broken on purpose.
Belongs here: generating raw files. Does not: anything that reads them.
"""

import io
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, ImageDraw

from pipelines.config import digest_of

VERSION = 5
THEME_OF, TASTE = "_themes.npy", "_taste.npy"  # what is planted, for the crowd: theme of each item, taste of each user
RATE = 16_000
CLIP_SECONDS, CLIP_FPS, CLIP_SIDE = 2, 6, 160


@dataclass(frozen=True)
class Theme:
    """What items of one theme look, read and sound like."""

    name: str
    nouns: tuple[str, ...]
    scenes: tuple[str, ...]
    colours: tuple[str, str]
    shape: str
    pitch_hz: float
    noise: float


THEMES = (
    Theme(
        "ocean",
        ("wave", "reef", "harbour", "sailboat", "tide"),
        ("salt wind over deep blue water", "dolphins beside a boat at dawn"),
        ("#0a4a7a", "#7fd4ff"),
        "waves",
        110,
        0.6,
    ),
    Theme(
        "desert",
        ("dune", "cactus", "caravan", "canyon", "mirage"),
        ("hot sand under a burning sun", "a camel train crossing dry land"),
        ("#c98a3b", "#ffe2a8"),
        "hills",
        220,
        0.1,
    ),
    Theme(
        "city",
        ("skyline", "subway", "neon", "rooftop", "traffic"),
        ("crowded streets and glass towers at night", "taxis under bright advertising"),
        ("#22222e", "#ff3d7f"),
        "blocks",
        440,
        0.2,
    ),
    Theme(
        "forest",
        ("pine", "moss", "trail", "fern", "cabin"),
        ("green shade below old trees", "mushrooms and birdsong after rain"),
        ("#123d1c", "#7bc96f"),
        "trees",
        880,
        0.05,
    ),
    Theme(
        "space",
        ("comet", "orbit", "nebula", "rocket", "satellite"),
        ("astronauts drifting among the stars", "a telescope pointed at a distant galaxy"),
        ("#05030f", "#d9d2ff"),
        "stars",
        1760,
        0.02,
    ),
    Theme(
        "kitchen",
        ("bread", "soup", "spice", "noodle", "pastry"),
        ("fresh dough rising in a warm oven", "a chef tasting a fragrant sauce"),
        ("#8f2d1e", "#ffd9b0"),
        "circles",
        3000,
        0.3,
    ),
)
EXTRAS = ("", " — café edition", " 限定版", " 🌟", " عربي")


@dataclass(frozen=True)
class Size:
    """How much to generate."""

    items: int = 180
    users: int = 150
    days: int = 10
    events_per_user_day: float = 2.2
    new_items_per_day: int = 3


@dataclass(frozen=True)
class Habits:
    """What items of a kind of house have, and how they are found.

    Attributes:
        text: share of the items with a text; likewise ``image`` and ``sound``.
        clip_every: one item in so many has a clip; 0: none.
        event: what users do.
        strong: what they do more rarely, with an amount.
        strong_share: how rarely.
        fresh: how much sooner an item is found on its first day.
        lasts: share of its fame that an item keeps from day to day.
    """

    text: float = 0.9
    image: float = 0.85
    sound: float = 0.5
    clip_every: int = 6
    event: str = "view"
    strong: str = "purchase"
    strong_share: float = 0.15
    fresh: float = 2.0
    lasts: float = 1.0


HABITS = {
    "ecommerce": Habits(),
    "music": Habits(text=0.3, image=0.5, sound=1.0, clip_every=0, event="play", strong="favorite", strong_share=0.2),
    "news": Habits(
        text=1.0, sound=0.0, clip_every=0, event="click", strong="share", strong_share=0.05, fresh=6.0, lasts=0.4
    ),
    "travel": Habits(sound=0.0, clip_every=0, strong="favorite", strong_share=0.3, fresh=1.0),
    "video": Habits(text=0.6, sound=0.0, clip_every=1, event="play", strong="rating", strong_share=0.1),
}


def generate(
    root: Path, first_day: date, size: Size = Size(), seed: int = 7, habits: Habits = HABITS["ecommerce"]
) -> None:
    """Write the shop's raw folder, unless the same shop is there already.

    Args:
        root: becomes the raw folder; replaced as a whole.
        first_day: day of the first log.
        size: how much.
        seed: same seed, same bytes.
        habits: of the kind of house.
    """
    stamp = digest_of([VERSION, first_day.isoformat(), vars(size), seed, vars(habits)])
    if (root / "_SHOP").is_file() and (root / "_SHOP").read_text() == stamp:
        return
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("interactions", "items", "user_content", "users", "controls", "media"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    themes = rng.integers(len(THEMES), size=size.items)
    appears = np.zeros(size.items, int)
    late = min(size.items, size.new_items_per_day * (size.days - 1))
    if late:
        appears[-late:] = np.repeat(np.arange(1, size.days), size.new_items_per_day)[:late]
    _write_items(root, rng, themes, appears, first_day, habits)
    taste = _tastes(rng, size.users)
    _write_events(root, rng, themes, appears, taste, first_day, size, habits)
    np.save(root / THEME_OF, themes)
    np.save(root / TASTE, taste)
    _write_uploads(root, rng, taste, first_day, size)
    _write_users(root, rng, taste)
    _write_wishes(root, rng, first_day, size)
    (root / "_SHOP").write_text(stamp)


# --- items ------------------------------------------------------------------------------------------------------


def _write_items(
    root: Path, rng: np.random.Generator, themes: np.ndarray, appears: np.ndarray, first_day: date, habits: Habits
) -> None:
    lines = []
    for i, theme_at in enumerate(themes):
        theme = THEMES[theme_at]
        noun, scene = theme.nouns[rng.integers(5)], theme.scenes[rng.integers(2)]
        row: dict[str, object] = {
            "item_id": f"I{i:04d}",
            "created_at": _moment(first_day, int(appears[i]), 0.0),
        }
        row["domain"] = theme.name  # colours the map of items; no model reads it
        has_text, has_image, has_sound = rng.random(3) < (habits.text, habits.image, habits.sound)
        row["name"] = f"{noun.title()} no. {i}{EXTRAS[rng.integers(len(EXTRAS))]}"
        if has_text or not (has_image or has_sound):
            row["about"] = f"A {noun} print: {scene}. Made for people who love the {theme.name}."
        if has_image:
            row["image"] = f"media/I{i:04d}.jpg"
            (root / "media" / f"I{i:04d}.jpg").write_bytes(_picture(rng, theme))
        if has_sound:
            suffix = "flac" if i % 2 else "ogg"
            row["sound"] = f"media/I{i:04d}.{suffix}"
            (root / "media" / f"I{i:04d}.{suffix}").write_bytes(_sound(rng, theme, suffix))
        if habits.clip_every and i % habits.clip_every == 0:
            row["clip"] = f"media/I{i:04d}.mp4"
            (root / "media" / f"I{i:04d}.mp4").write_bytes(_clip(np.random.default_rng((len(themes), i)), theme))
        row["price"] = round(float(rng.uniform(5, 80)), 2)
        lines.append(json.dumps(row, ensure_ascii=False))
    lines += _broken_items(root, first_day)
    (root / "items" / "catalogue.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _broken_items(root: Path, first_day: date) -> list[str]:
    """Two items with broken pictures, one with a broken clip, a path out of the folder, a line that is no JSON."""
    (root / "media" / "torn.jpg").write_bytes(_picture(np.random.default_rng(0), THEMES[0])[:900])
    (root / "media" / "note.png").write_text("this is not a picture")
    when = _moment(first_day, 0, 0.0)
    rows = [
        ("X0001", "Torn picture", "media/torn.jpg"),
        ("X0002", "No picture at all", "media/note.png"),
        ("X0003", "Path that leaves", "../../etc/passwd"),
    ]
    (root / "media" / "torn.mp4").write_bytes(_clip(np.random.default_rng(0), THEMES[0])[:900])
    return [
        *(json.dumps({"item_id": i, "name": n, "image": p, "created_at": when}) for i, n, p in rows),
        '{"item_id": "X0004", "name": ',
        json.dumps({"item_id": "X0005", "name": "Torn clip", "clip": "media/torn.mp4", "created_at": when}),
    ]


def _picture(rng: np.random.Generator, theme: Theme) -> bytes:
    dark, light = theme.colours
    image = Image.new("RGB", (240, 240), dark)
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, s = (int(v) for v in rng.integers((0, 0, 15), (240, 240, 70)))
        box = {"waves": (x - 2 * s, y, x + 2 * s, y + s // 3), "stars": (x, y, x + 4, y + 4)}.get(
            theme.shape, (x, y, x + s, y + s)
        )
        if theme.shape == "blocks":
            draw.rectangle((x, y, x + s // 2, 240), fill=light)
        elif theme.shape == "trees":
            draw.polygon([(x, y), (x - s // 2, y + 2 * s), (x + s // 2, y + 2 * s)], fill=light)
        elif theme.shape == "hills":
            draw.pieslice((x - 2 * s, y, x + 2 * s, y + 2 * s), 180, 360, fill=light)
        else:
            draw.ellipse(box, fill=light)
    noisy = np.asarray(image, np.int16) + rng.normal(0, 12, (240, 240, 1)).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def _wave(rng: np.random.Generator, theme: Theme, seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    base = theme.pitch_hz * 2 ** (rng.uniform(-2, 2) / 12)
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 4) * t)
    wave = beat * (np.sin(2 * np.pi * base * t) + 0.4 * np.sin(4 * np.pi * base * t)) + theme.noise * rng.normal(
        size=len(t)
    )
    return 0.4 * wave / np.abs(wave).max()


def _sound(rng: np.random.Generator, theme: Theme, suffix: str) -> bytes:
    out = io.BytesIO()
    kind = {"flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS")}[suffix]
    soundfile.write(out, _wave(rng, theme, 3.2), RATE, format=kind[0], subtype=kind[1])
    return out.getvalue()


def _clip(rng: np.random.Generator, theme: Theme) -> bytes:
    """A camera that pans over a picture of the theme, with its sound; the same bytes for the same seed."""
    scene, out = Image.open(io.BytesIO(_picture(rng, theme))), io.BytesIO()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("mpeg4", rate=CLIP_FPS, options={"flags": "+bitexact", "threads": "1"})
        video.width = video.height = CLIP_SIDE
        audio = container.add_stream("aac", rate=RATE, layout="mono", options={"flags": "+bitexact"})
        frames = CLIP_SECONDS * CLIP_FPS
        for n in range(frames):
            left = round(n * (scene.width - CLIP_SIDE) / (frames - 1))
            view = scene.crop((left, 40, left + CLIP_SIDE, 40 + CLIP_SIDE))
            container.mux(video.encode(av.VideoFrame.from_image(view)))
        container.mux(video.encode(None))
        wave = av.AudioFrame.from_ndarray(
            _wave(rng, theme, CLIP_SECONDS).astype(np.float32)[None], format="fltp", layout="mono"
        )
        wave.sample_rate = RATE
        container.mux([*audio.encode(wave), *audio.encode(None)])
    return out.getvalue()


# --- users ------------------------------------------------------------------------------------------------------


def _tastes(rng: np.random.Generator, users: int) -> np.ndarray:
    """Probability of each theme (users, themes): one strong, one weaker, a little of everything."""
    taste = np.full((users, len(THEMES)), 0.02)
    for row in taste:
        first, second = rng.choice(len(THEMES), 2, replace=False)
        row[first] += 0.7
        row[second] += 0.25
    return taste / taste.sum(1, keepdims=True)


def _moment(first_day: date, day: int, fraction: float) -> str:
    start = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
    return (start + timedelta(days=day + fraction)).isoformat(timespec="seconds")


def _write_events(
    root: Path,
    rng: np.random.Generator,
    themes: np.ndarray,
    appears: np.ndarray,
    taste: np.ndarray,
    first_day: date,
    size: Size,
    habits: Habits,
) -> None:
    """One CSV a day; items are found by theme, with a mild popularity among them, newest slightly favoured."""
    fame = rng.pareto(3.0, size=len(themes)) + 0.3
    joins = np.where(np.arange(size.users) % 5 == 0, rng.integers(1, size.days, size.users), 0)
    seen: set[tuple[int, int]] = set()
    for day in range(size.days):
        lines = ["uid,item_id,event,amount,ts"]
        known = fame * (appears <= day) * habits.lasts ** np.maximum(day - appears, 0)
        for user in np.flatnonzero(joins <= day):
            for _ in range(rng.poisson(size.events_per_user_day)):
                weight = taste[user, themes] * known * np.where(appears == day, habits.fresh, 1.0)
                item = int(rng.choice(len(themes), p=weight / weight.sum()))
                if (int(user), item) in seen:
                    continue
                seen.add((int(user), item))
                second = int(rng.integers(86_400))
                epoch = int(datetime.fromisoformat(_moment(first_day, day, 0.0)).timestamp()) + second
                strong = rng.random() < habits.strong_share
                event, amount = (habits.strong, f"{rng.uniform(5, 80):.2f}") if strong else (habits.event, "")
                lines.append(f"U{user:04d},I{item:04d},{event},{amount},{epoch}")
        lines += _broken_events(day, lines)
        name = f"{(first_day + timedelta(days=day)).isoformat()}.csv"
        (root / "interactions" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _broken_events(day: int, lines: list[str]) -> list[str]:
    """A duplicate, a bad time, a missing user, a stray quote; every third day."""
    if day % 3 or len(lines) < 2:
        return []
    return [
        lines[1],
        "U0001,I0001,view,,not-a-time",
        ",I0002,view,,1770000000",
        'U0002,"I0003,view,,1770000000',
    ]


def _write_uploads(root: Path, rng: np.random.Generator, taste: np.ndarray, first_day: date, size: Size) -> None:
    """Reviews and pictures of some users; ten newcomers have uploads and no events at all."""
    lines = []
    people = [(int(u), f"U{u:04d}") for u in rng.choice(size.users, size.users // 4, replace=False)]
    people += [(int(rng.integers(size.users)), f"N{n:03d}") for n in range(10)]
    for like, name in people:
        theme = THEMES[int(taste[like].argmax())]
        row: dict[str, object] = {
            "user_id": name,
            "created_at": _moment(first_day, int(rng.integers(size.days)), float(rng.random())),
        }
        row["text"] = f"I adore anything about the {theme.name}: {theme.scenes[rng.integers(2)]}."
        if rng.random() < 0.4:
            row["image"] = f"media/upload-{name}.png"
            Image.open(io.BytesIO(_picture(rng, theme))).save(root / "media" / f"upload-{name}.png")
        lines.append(json.dumps(row))
    (root / "user_content" / "uploads.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_users(root: Path, rng: np.random.Generator, taste: np.ndarray) -> None:
    """Who they say they are: most name their strongest taste; five newcomers have nothing else, one has no id."""
    lines = ["user_id,segment,plan"]
    people = [(u, f"U{u:04d}") for u in range(len(taste))] + [
        (int(rng.integers(len(taste))), f"S{n:03d}") for n in range(5)
    ]
    for like, name in people:
        honest = rng.random() < 0.85
        theme = THEMES[int(taste[like].argmax()) if honest else int(rng.integers(len(THEMES)))]
        lines.append(f"{name},{theme.name},{'member' if rng.random() < 0.3 else 'guest'}")
    (root / "users" / "users.csv").write_text("\n".join([*lines, ",cats,guest"]) + "\n", encoding="utf-8")


def _write_wishes(root: Path, rng: np.random.Generator, first_day: date, size: Size) -> None:
    """What some users want more of, less of, or never again; one changes their mind, one wish is none."""
    lines = ["user_id,wish,item_id,created_at"]
    for user in rng.choice(size.users, size.users // 5, replace=False):
        wish, item = ("hide", "less", "more")[rng.integers(3)], int(rng.integers(size.items))
        day = int(rng.integers(size.days))
        lines.append(f"U{user:04d},{wish},I{item:04d},{_moment(first_day, day, 0.25)}")
        if len(lines) == 2:
            lines.append(f"U{user:04d},reset,I{item:04d},{_moment(first_day, day, 0.5)}")
    lines.append(f"U0001,loathe,I0001,{_moment(first_day, 0, 0.5)}")
    (root / "controls" / "wishes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
