"""Generating text: the engine of a decoder, sampling, chat templates. numpy and jinja2, nothing heavier."""
