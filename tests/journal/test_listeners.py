"""Who hears of each group."""

from backend_watcher.journal.listeners import Listeners


def test_each_hears_until_it_ends():
    listeners, heard = Listeners(), []
    end = listeners.add(lambda: heard.append("a"))
    listeners.add(lambda: heard.append("b"))
    listeners.tell()
    end()
    listeners.tell()
    assert heard == ["a", "b", "b"]


def test_one_callback_twice_is_two_listeners():
    listeners, heard = Listeners(), []

    def callback():
        heard.append(1)

    end = listeners.add(callback)
    listeners.add(callback)
    listeners.tell()
    end()
    end()
    listeners.tell()
    assert len(heard) == 3


def test_one_that_fails_is_logged_and_the_others_hear(caplog):
    listeners, heard = Listeners(), []

    def fail():
        raise ValueError("no")

    listeners.add(fail)
    listeners.add(lambda: heard.append(1))
    listeners.tell()
    assert heard == [1]
    assert "listener failed" in caplog.text


def test_the_list_may_change_while_it_is_told():
    listeners, heard = Listeners(), []
    ends = []
    ends.append(listeners.add(lambda: ends[1]()))
    ends.append(listeners.add(lambda: heard.append(1)))
    listeners.add(lambda: listeners.add(lambda: heard.append(2)))
    listeners.tell()
    assert heard == [1]
    listeners.tell()
    assert heard == [1, 2]
