"""The page of a comparison: one HTML file with plots and sound in it, that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import datetime as dt
import io
from collections.abc import Sequence
from html import escape

import numpy as np

from asd_agent import config
from asd_agent.archive.compare import Occasion, Outcome
from asd_agent.archive.recordings import local_copy
from asd_agent.errors import SourceError

BEFORE_S, AFTER_S = 10.0, 5.0  # around the window that raised the alarm
MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MONTH_DAYS = 365.25 / 12
LONG_ENOUGH_DAYS = 3.0  # below it a rate a month means nothing
WIDTH, HEIGHT, LEFT = 960, 56, 8  # of a strip
HEADROOM = 1.3
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin:1rem 0 .2rem;font-weight:600}
table{border-collapse:collapse;width:100%;font-size:.92rem}th,td{text-align:left;padding:.3rem .6rem;vertical-align:top;
border-bottom:1px solid #ddd}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.t{white-space:nowrap}
p.small{color:#555;font-size:.9rem}
svg{display:block;width:100%;height:auto;background:#fafafa;border:1px solid #e2e2e2}audio{height:2rem;width:16rem}
.alert{color:#8a5a00}.danger{color:#b00020;font-weight:600}
"""


def page(
    outcomes: Sequence[Outcome], found: Sequence[Occasion], machines: dict[str, config.Machine], most_clips: int,
    normal_until_utc_s: float,
) -> str:  # fmt: skip
    """`most_clips`: alarms whose sound is put into the page; of the others the file and the second are named."""
    names = list(dict.fromkeys(o.machine for o in outcomes))
    body = [
        "<h1>Alarms that each setting would have raised</h1>",
        f"<p>{len({o.setting for o in outcomes})} settings on {len(names)} machine{'s' * (len(names) > 1)}. Sound "
        f"before {_time(normal_until_utc_s)} UTC was taken as normal and taught each of them; the alarms are those "
        "after it. Times are UTC.</p>",
    ]
    clips = most_clips
    for name in names:
        mine = [o for o in outcomes if o.machine == name]
        occasions = [occasion for occasion in found if occasion.machine == name]
        body += [f"<h2>{escape(name)}</h2>", _summary(mine), _plots(mine)]
        body.append(_alarms(occasions, mine, machines[name].source.channel, clips))
        clips = max(0, clips - len(occasions))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Comparison of settings</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(body)
        + "</body></html>\n"
    )


def _summary(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for o in outcomes:
        present = sum((a.cleared_utc_s or o.last_utc_s) - a.raised_utc_s for a in o.alarms)
        rate = f"{len(o.alarms) / o.days * MONTH_DAYS:.2g}" if o.days >= LONG_ENOUGH_DAYS else ""
        share = f"{100 * o.anomalous / o.judged:.2g} %" if o.judged else ""
        limit = "" if o.limit is None else f"{o.limit:.2f}"
        rows.append(
            f'<tr><td>{escape(o.setting)}</td><td class="n">{len(o.alarms)}</td><td class="n">{rate}</td>'
            f'<td class="n">{present / 3600:.1f} h</td><td class="n">{share}</td><td class="n">{o.windows}</td>'
            f'<td class="n">{limit}</td><td>{escape(o.verdict)}</td></tr>'
        )
    return (
        '<table><thead><tr><th>setting</th><th class="n">alarms</th><th class="n">a month</th>'
        '<th class="n">present</th><th class="n">windows that deviate</th>'
        '<th class="n">windows</th><th class="n">limit</th><th>calibration</th>'
        "</tr></thead><tbody>" + "".join(rows) + "</tbody></table>"
    )


def _plots(outcomes: Sequence[Outcome]) -> str:
    known = [o for o in outcomes if o.series]
    if not known:
        return '<p class="small">No window was judged.</p>'
    first, last = min(o.first_utc_s for o in known), max(o.last_utc_s for o in known)
    strips = [f"<h3>{escape(o.setting)}</h3>{strip(o, first, last)}" for o in known]
    return (
        "".join(strips)
        + f'<p class="small">{_time(first)} to {_time(last)}. Line: highest score of each time; dashed: the score from '
        "which a window deviates; red: an alarm is present. Scores above the limit are compressed.</p>"
    )


def strip(outcome: Outcome, first_utc_s: float, last_utc_s: float) -> str:
    """An SVG: scores over time, the limit, and the alarms."""
    span = max(last_utc_s - first_utc_s, 1.0)
    limit = outcome.limit or 1.0

    def x(at: float) -> float:
        return round(LEFT + (WIDTH - 2 * LEFT) * (at - first_utc_s) / span, 1)

    def y(score: float) -> float:  # linear to the limit at half height, above it by the logarithm
        share = score / limit if score <= limit else 1.0 + np.log10(score / limit) / np.log10(30.0)
        return round(HEIGHT - 2 - (HEIGHT - 4) * min(float(share) / 2, 1.0), 1)

    bars = ""
    for alarm in outcome.alarms:
        begin, end = x(alarm.raised_utc_s), x(alarm.cleared_utc_s or outcome.last_utc_s)
        title = f"{escape(alarm.level)} {_time(alarm.raised_utc_s)}: {escape(alarm.reason)}"
        bars += (
            f'<rect x="{begin}" y="0" width="{max(end - begin, 2):.1f}" height="{HEIGHT}" fill="#e0301e" '
            f'fill-opacity="{_opacity(alarm.level)}"><title>{title}</title></rect>'
        )
    usual = span / max(len(outcome.series), 1)
    path, before = [], -np.inf
    for at, score in outcome.series:
        path.append(f"{'L' if at - before < 4 * usual else 'M'}{x(at)} {y(score)}")
        before = at
    dots = "".join(f'<circle cx="{x(at)}" cy="{y(s)}" r="1.1"/>' for at, s in outcome.series)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="score over time, {len(outcome.alarms)} alarms">'
        f'{bars}<line x1="0" x2="{WIDTH}" y1="{y(limit)}" y2="{y(limit)}" stroke="#777" stroke-dasharray="4 3"/>'
        f'<g fill="#1b5e9b"><path d="{"".join(path)}" fill="none" stroke="#1b5e9b" stroke-width="1"/>{dots}</g></svg>'
    )


def _opacity(level: str) -> float:
    return 0.45 if level == "danger" else 0.25


def _alarms(found: Sequence[Occasion], outcomes: Sequence[Outcome], channel: int, most_clips: int) -> str:
    if not found:
        return "<p>No setting raised an alarm.</p>"
    names = [o.setting for o in outcomes]
    rows = []
    for number, occasion in enumerate(found):
        alarm = min(occasion.raised.values(), key=lambda a: a.raised_utc_s)
        listen = _player(alarm.file, alarm.start_s, alarm.duration_s, channel) if number < most_clips else ""
        who = "all" if len(occasion.raised) == len(names) else ", ".join(n for n in names if n in occasion.raised)
        rows.append(
            f'<tr><td class="t">{_time(occasion.begins_utc_s)}</td><td class="{alarm.level}">{alarm.level}</td>'
            f"<td>{escape(who)}</td><td>{escape(alarm.reason)}<br><small>{escape(alarm.file)} at "
            f"{alarm.start_s:.1f} s</small></td><td>{listen}</td></tr>"
        )
    return (
        "<h3>Alarms, with their sound</h3><table><thead><tr><th>from</th><th>level</th><th>raised by</th>"
        "<th>reason</th><th>listen</th></tr></thead><tbody>" + "".join(rows) + "</tbody></table>"
    )


def _player(url: str, start_s: float, duration_s: float, channel: int) -> str:
    try:
        data = clip(url, start_s - BEFORE_S, start_s + duration_s + AFTER_S, channel)
    except SourceError as exc:
        return f"<small>{escape(str(exc))}</small>"
    encoded = base64.b64encode(data).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{encoded}"></audio>'


def clip(url: str, from_s: float, to_s: float, channel: int) -> bytes:
    """MP3 of a part of a recording, as much of it as there is. Raises SourceError."""
    import soundfile
    import soxr

    with local_copy(url) as path:
        try:
            with soundfile.SoundFile(path) as sound:
                rate_hz = sound.samplerate
                begin = max(0, round(from_s * rate_hz))
                sound.seek(min(begin, max(sound.frames - 1, 0)))
                samples = sound.read(max(1, round(to_s * rate_hz) - begin), dtype="float32", always_2d=True)[:, channel]
        except (OSError, IndexError, soundfile.LibsndfileError) as exc:
            raise SourceError(f"{url}: cannot be read again ({exc})") from exc
    if rate_hz not in MP3_RATES_HZ:
        wanted = min((r for r in MP3_RATES_HZ if r >= rate_hz), default=MP3_RATES_HZ[-1])
        samples, rate_hz = soxr.resample(samples, rate_hz, wanted), wanted
    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -1, 1), rate_hz, format="MP3")
    return out.getvalue()


def _time(utc_s: float) -> str:
    return dt.datetime.fromtimestamp(utc_s, dt.UTC).strftime("%Y-%m-%d %H:%M")
