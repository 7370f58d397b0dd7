"""Takes the pictures of the documentation: `python -m tests.pages.pictures docs/images`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from holdfast.contracts import StreamEvent
from tests.pages.browsers import chromium, window
from tests.pages.scenes import a_team_at_work, a_working_day
from tests.pages.staged import staged

TEXT = "Dear Mrs Okafor,\n\nthank you for the photo"


async def main(directory: Path) -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as temporary:
        async with staged(Path(temporary)) as stage, chromium() as browser:
            ids = await a_working_day(stage)
            running = await a_team_at_work(stage)
            async with window(browser, stage.url, width=1280, height=860) as shown:
                await shown.sign_in("ann")
                await shown.page.wait_for_selector(".live:not(.off)")
                await shown.page.screenshot(path=directory / "inbox.png")
                await shown.page.click(f'[data-id="{ids[1]}"]')
                await shown.page.wait_for_selector(f'article[data-id="{ids[1]}"]')
                await shown.page.keyboard.press("e")
                edited = (
                    (await shown.page.input_value("#payload"))
                    .replace("within three working days", "by Thursday")
                    .replace("I am sorry about the broken lamp", "we are very sorry about the broken lamp")
                )
                await shown.page.fill("#payload", edited)
                await shown.page.fill("[name=reason]", "Warmer, and a day instead of a span")
                await shown.page.screenshot(path=directory / "inbox-edit.png")
            async with window(browser, stage.url, width=390, height=844, scale=2) as shown:
                await shown.sign_in("ann")
                await shown.page.tap(f'[data-id="{ids[1]}"]')
                await shown.page.wait_for_selector(f'article[data-id="{ids[1]}"]')
                await shown.page.screenshot(path=directory / "inbox-phone.png")
            async with window(browser, stage.url, width=1120, height=1180) as shown:
                await shown.sign_in("carl", f"/requests/{running}")
                text = "Dear Mrs Okafor,\n\nthank you for the photo. The refund of 129.00 EUR is on its way to "
                await stage.relay.publish(StreamEvent(request_id=running, attempt=3, offset=0, kind="began"))
                await stage.relay.publish(StreamEvent(request_id=running, attempt=3, offset=0, kind="text", text=text))
                await shown.page.wait_for_selector("#stream:not([hidden])")
                await shown.page.click("#call-2\\.0 summary")
                await shown.page.screenshot(path=directory / "request.png")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
