#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looks at the page of a running server in a headless browser while robots drive, presses its buttons, and leaves a picture.

    pip install playwright                                    # and a chromium, from the distribution or by `playwright install chromium`
    build/soma serve --policy run --port 8000 &
    build/soma eval --server ws://127.0.0.1:8000 --task touch_color --image 64 &
    tools/check_page.py http://127.0.0.1:8000 --chromium /usr/bin/chromium --picture page.png

Checks: a client with a prompt, as many pictures as it sends, not all of one colour; one plot per action; pause and resume; the emergency stop by
button and by key, and its release.
"""
import argparse
import json
import urllib.request

from playwright.sync_api import sync_playwright


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--chromium")
    parser.add_argument("--picture")
    args = parser.parse_args()

    def live():
        return json.load(urllib.request.urlopen(args.address + "/live"))

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        problems = []
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto(args.address)
        # all at one moment: a robot may leave and another take its place on the page
        seen = page.wait_for_function(
            """() => {
                const values = c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size;
                const colours = [...document.querySelectorAll('#pictures canvas')].map(values);
                const prompt = document.querySelector('#prompt').innerText, plots = document.querySelectorAll('#plots canvas').length;
                return colours.length && Math.min(...colours) > 2 && prompt && plots && {colours, prompt, plots};
            }""",
            timeout=20000,
        ).json_value()
        print("prompt:", seen["prompt"], "| pictures:", len(seen["colours"]), "| values in each:", seen["colours"])
        assert seen["plots"] == live()["policy"]["n_actions"]
        if args.picture:
            page.screenshot(path=args.picture)
        for button, key, on, off in [("#pause", "paused", "paused", "serving"), ("#hold", "held", "held", "serving")]:
            for wanted, word in [(True, on), (False, off)]:
                page.click(button)
                page.wait_for_function("w => document.querySelector('#state').textContent === w", arg=word)
                assert live()[key] is wanted
                print(f"{button}: {word}")
        page.keyboard.press("Escape")
        page.wait_for_function("document.querySelector('#state').textContent === 'held'")
        assert live()["held"] is True
        page.keyboard.press("Escape")  # never releases
        page.wait_for_timeout(600)
        assert live()["held"] is True
        page.click("#hold")
        page.wait_for_function("document.querySelector('#state').textContent === 'serving'")
        assert not problems, problems
        browser.close()
    print("ok")


if __name__ == "__main__":
    main()
