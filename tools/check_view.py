#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looks at the page that `soma data view` wrote in a headless browser: do its videos play, are its curves drawn, does the mark move?

    pip install playwright                                    # and a chromium, from the distribution or by `playwright install chromium`
    build/soma data view DATASET --episode 3 --out episode.html
    tools/check_view.py episode.html --chromium /usr/bin/chromium --picture page.png

Checks: every video is decoded, plays with the first one and stands still when that is paused (how many values its picture has is told: a
camera may be black);
every curve has points that are numbers and takes up room; the mark in every plot moves with the first video. Exit code: 0 all so, 1 not.
"""
import argparse
import pathlib

from playwright.sync_api import sync_playwright

LOOK = """async () => {
    const videos = [...document.querySelectorAll('video')];
    for (const v of videos) if (v.readyState < 2) await new Promise((yes, no) => {
        v.onloadeddata = yes;
        v.onerror = () => no(new Error('a video cannot be decoded: ' + (v.error || {}).message));
        v.load();
    });
    const marks = () => [...document.querySelectorAll('.now')].map(l => +(l.getAttribute('x1') || 0));
    const before = marks();
    if (videos.length) {
        await videos[0].play();
        await new Promise(r => setTimeout(r, 1500));
        videos[0].pause();
        await new Promise(r => setTimeout(r, 300));
    }
    const after = marks(), stopped = videos.map(v => v.currentTime);
    await new Promise(r => setTimeout(r, 300));
    return {
        videos: videos.map((v, i) => {
            const c = document.createElement('canvas');
            c.width = v.videoWidth; c.height = v.videoHeight;
            c.getContext('2d').drawImage(v, 0, 0);
            const colours = new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size;
            return {width: v.videoWidth, height: v.videoHeight, seconds: v.duration, at: v.currentTime, still: v.currentTime === stopped[i],
                    shown: v.getVideoPlaybackQuality().totalVideoFrames, colours};
        }),
        curves: [...document.querySelectorAll('polyline')].map(p => {
            const points = [...p.points].map(q => [q.x, q.y]), box = p.getBBox();
            return {points: points.length, good: points.every(q => q.every(Number.isFinite)), width: box.width, inside:
                    points.every(q => q[0] >= 0 && q[0] <= p.ownerSVGElement.clientWidth && q[1] >= 0 && q[1] <= p.ownerSVGElement.clientHeight)};
        }),
        moved: after.map((x, i) => x - before[i]),
    };
}"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("page")
    parser.add_argument("--chromium")
    parser.add_argument("--picture")
    args = parser.parse_args()
    problems = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=args.chromium, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))
        page.goto(pathlib.Path(args.page).resolve().as_uri())
        seen = page.evaluate(LOOK)
        if args.picture:
            page.screenshot(path=args.picture)
        browser.close()
    for v in seen["videos"]:
        print("video %(width)dx%(height)d, %(seconds).2f s: at %(at).2f s after playing, %(shown)d frames shown, %(colours)d values" % v)
        if v["at"] <= 0.2 or v["shown"] < 2 or not v["still"]:
            problems.append("a video does not play as it should")
    curves = seen["curves"]
    points = [c["points"] for c in curves] or [0]
    print("%d curves of %d to %d points" % (len(curves), min(points), max(points)))
    if not curves or not all(c["good"] and c["inside"] and c["points"] > 1 and c["width"] > 0 for c in curves):
        problems.append("a curve is not drawn")
    if seen["videos"] and not all(m > 0 for m in seen["moved"]):
        problems.append("a mark does not move")
    if len({round(v["at"], 1) for v in seen["videos"]}) > 1:
        problems.append("the videos are not at the same time: %s" % [v["at"] for v in seen["videos"]])
    print("\n".join(problems) if problems else "all as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
