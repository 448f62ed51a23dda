"""The page in the browser: type, choose a voice, listen while it is generated.

``page.build_ui(engine)`` makes it, ``launch.launch(config)`` serves it. Gradio is imported with
the page, not before: only who wants the page needs it.
"""
