"""Visits the page of a gateway as a person does: reads, unfolds, deletes, and is told when that fails.

Arguments: the gateway's URL, and its process id: it is killed in the end.
"""

import os
import signal
import sys
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.wait import WebDriverWait

url, gateway = sys.argv[1], int(sys.argv[2])
options = webdriver.ChromeOptions()
for flag in ["headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,1000"]:
    options.add_argument("--" + flag)
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
# To ask a page that is just being left is an error.
wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])


def groups():
    return browser.find_elements(By.CSS_SELECTOR, "details.group")


def group(job):
    return next(group for group in groups() if f'job="{job}"' in group.find_element(By.TAG_NAME, "summary").text)


def unfold(details):
    details.find_element(By.CSS_SELECTOR, "summary").click()
    assert details.get_property("open")


def press(button, *, then):
    """Presses what asks back, and answers."""
    button.click()
    question = wait.until(alert_is_present())
    text = question.text
    getattr(question, then)()
    return text


def until_loaded(condition):
    """Waits for a page that is as it should be, and done."""
    wait.until(lambda _: condition() and browser.execute_script("return document.readyState") == "complete")


def reads():
    browser.get(url)
    assert browser.title == "jobmon gateway", browser.title
    seen = {job: group(job).find_element(By.TAG_NAME, "summary").text for job in ["backup", "late", "refused"]}
    for job, badge in [
        ("backup", "In time"),
        ("backup", "Last run: failed with exit code 3"),
        ("late", "Overdue"),
        ("refused", "Last push failed!"),
    ]:
        assert badge in seen[job], (job, badge, seen)
    # Markup that was pushed is text.
    assert browser.execute_script("return window.pushed") is None
    stored = browser.find_element(By.ID, "groups").get_property("textContent")
    assert stored.count('<img src="x" onerror="window.pushed = 1">') == 2, stored


def unfolds():
    unfold(group("backup"))
    runs = group("backup").find_element(By.CSS_SELECTOR, "details.runs")
    unfold(runs)
    rows = [row.text for row in runs.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert rows == [
        "2001-09-09T01:48:20Z failed with exit code 3 3 1h 2m 3s",
        "2001-09-09T01:46:40Z succeeded 0 1s 500ms",
    ], rows
    browser.refresh()
    assert [details for details in groups() if details.get_property("open")] == [group("backup")]


def deletes():
    delete = group("backup").find_element(By.CSS_SELECTOR, "button")
    press(delete, then="dismiss")
    assert len(groups()) == 4
    press(delete, then="accept")
    until_loaded(lambda: len(groups()) == 3)

    wipe = browser.find_element(By.CSS_SELECTOR, "button[data-wipe]")
    assert press(wipe, then="accept") == "Delete all 3 groups?"
    until_loaded(lambda: "Nothing has been pushed yet." in browser.find_element(By.ID, "groups").text)
    complaints = browser.get_log("browser")
    assert complaints == [], complaints


def is_told():
    push = urllib.request.Request(f"{url}/metrics/job/left", b"m 1\n", method="PUT")
    assert urllib.request.urlopen(push).status == 200
    browser.refresh()
    unfold(group("left"))
    os.kill(gateway, signal.SIGKILL)
    press(group("left").find_element(By.CSS_SELECTOR, "button"), then="accept")
    notice = browser.find_element(By.ID, "notice")
    wait.until(lambda _: notice.is_displayed())
    assert notice.text.startswith("the gateway did not answer"), notice.text


try:
    for step in [reads, unfolds, deletes, is_told]:
        step()
finally:
    browser.quit()
