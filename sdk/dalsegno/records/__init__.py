"""Executions as JSON: what `import_` reads and `export` writes.

A record is one JSON document, or a file of JSON Lines (``.jsonl``): the header on the first line, a step on
each further one, and ``{"returns": …}`` on the last where there is one. Both stream; a document above
64 MiB has to have its header before ``steps``.

::

    {"flow": "rnaseq", "kind": "pipeline", "inputs": {"lr": 0.1},
     "steps": [{"invocation_id": "load", "name": "load", "status": "completed", "outputs": {"output": [1, 2]}},
               {"invocation_id": "fit", "name": "fit", "inputs": {"xs": {"step": "load", "output": "output"},
                "lr": {"flow_input": "lr"}, "k": {"value": 3}}, "outputs": {"output": {"$artifact": "…"}}}],
     "returns": {"step": "fit", "output": "output"}}

=========  =================================================================================================
header     ``flow`` and ``kind`` (``flow``, ``pipeline``); optional ``module name status inputs result failure
           started_at finished_at code_digest shaping_inputs definitions returns``. A ``name`` that is taken
           gives way to another one. For a replay ``original_exec_id requested_by overridden_inputs
           single_step debug``
step       ``invocation_id`` and ``name``; optional ``kind`` (``step``, ``wait``), ``status`` (``completed``,
           ``failed``, ``cancelled``, ``not_reached``), ``module inputs after outputs code_digest options
           failure started_at finished_at``, and for a wait ``wait``; ``attempt`` and ``failed_attempts``
           where there was more than one attempt; in a replay ``overridden_inputs stale_inputs``,
           ``output_overridden`` with what the step itself had ``returned``, and ``original_call_id`` where it
           was reused: the call that it was reused from
binding    ``{"step": ID, "output": NAME}``, ``{"flow_input": NAME}``, ``{"value": …}``, a list or dict of
           bindings; in full ``{"list": […]}``, ``{"tuple": […]}``, ``{"dict": {…}}`` or
           ``{"dict": [[key, binding], …]}``. Each may have the ``digest`` of the value that was passed.
value      JSON, tagged with ``$type`` where it is more than JSON; ``{"$artifact": UUID}``; ``{"$value": …}``
           for a value that looks like one of these; ``{"$payload": {"codec": …}}`` for encoded bytes, with
           their ``content`` in base64 or their ``object_key``
=========  =================================================================================================

The steps of a flow are its durable call sequence, waits among them, in the order of the calls.
"""
