"""Runs beside the tests with the real client: reads code from standard input, line by line, answers in JSON.

The client reads its environment once, when it is imported; so each environment has a process.
"""

import io
import json
import logging
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout


def main():
    log = io.StringIO()
    logging.basicConfig(stream=log, level=logging.DEBUG)
    names = {}
    for line in sys.stdin:
        asked = json.loads(line)
        log.seek(0)
        log.truncate()
        out, answer = io.StringIO(), {}
        try:
            with redirect_stdout(out), redirect_stderr(out):
                exec(asked["code"], names)  # noqa: S102
            answer["value"] = names.pop("value", None)
        except BaseException as error:
            answer |= {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
        answer |= {"out": out.getvalue(), "log": log.getvalue()}
        sys.__stdout__.write(json.dumps(answer) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    main()
