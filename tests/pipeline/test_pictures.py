import warnings

from matplotlib.figure import Figure

from lora_rec.pipeline.pictures import to_png


def test_letters_that_no_font_has_are_one_line(caplog):
    figure = Figure()
    figure.suptitle("\U0001f9ff\ue123")  # a private letter, which no font has
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_png(figure).startswith(b"\x89PNG")
    (line,) = caplog.messages
    assert "is in no font that is installed; what it lacks is drawn as boxes" in line
    figure.suptitle("letters")
    caplog.clear()
    assert to_png(figure).startswith(b"\x89PNG")
    assert not caplog.messages
