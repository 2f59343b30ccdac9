"""What the inputs of recorded steps come from, as serialized messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dalsegno.records.details import checked_dict, listed, mapping_of, text_of
from dalsegno.records.places import Misfit, unknown_key
from dalsegno.records.values import ValueReader
from dalsegno.records.wire import content_start, map_entry, number_tag, text_field, varint
from dalsegno.v1.value_pb2 import Binding, BindingEntry, BindingList, BindingMap, Inputs, OutputRef

FORMS = frozenset({"step", "flow_input", "value", "list", "tuple", "dict"})
_BINDING_KEYS = {
    "step": frozenset({"step", "output", "alternatives", "digest", "canonical"}),
    **{form: frozenset({form, "digest", "canonical"}) for form in ("flow_input", "list", "tuple", "dict")},
    "value": frozenset({"value"}),
}
_BINDING = 'a step\'s output {"step": …, "output": …}, {"flow_input": …}, {"value": …}, or a list or dict of these'


_ENTRY = map_entry(Inputs.DESCRIPTOR, "bindings")
_entry_start = content_start(Inputs.DESCRIPTOR, "bindings")
_input_name = text_field(_ENTRY, "key")
_bound_start = content_start(_ENTRY, "value")
_reference_start = content_start(Binding.DESCRIPTOR, "output")
_flow_input = text_field(Binding.DESCRIPTOR, "flow_input")
_list_start = content_start(Binding.DESCRIPTOR, "list")
_tuple_start = content_start(Binding.DESCRIPTOR, "tuple")
_map_start = content_start(Binding.DESCRIPTOR, "map")
_item_start = content_start(BindingList.DESCRIPTOR, "items")
_NUMBER_TAG = number_tag(OutputRef.DESCRIPTOR, "number")
_referred_output = text_field(OutputRef.DESCRIPTOR, "output")
_alternative_start = content_start(OutputRef.DESCRIPTOR, "alternatives")


class BindingReader:
    """Makes messages of bindings.

    Attributes:
        numbers: Those of the steps so far by their invocation IDs, which whoever reads the steps adds to.
    """

    def __init__(self, values: ValueReader) -> None:
        self.numbers: dict[str, int] = {}
        self._values = values

    def inputs(self, inputs: Any) -> bytes:
        """Return the inputs of a step, as the content of an `Inputs`.

        Raises:
            Misfit: If they are none.
            NotFoundError: If they name an artifact that does not exist.
        """
        parts: list[bytes] = []
        for name, given in mapping_of(inputs, ".inputs").items():
            try:
                binding = self.binding(given)
            except Misfit as misfit:
                raise misfit.inside(f".inputs.{name}") from None
            entry = _input_name(name) + _bound_start(len(binding)) + binding
            parts += (_entry_start(len(entry)), entry)
        return b"".join(parts)

    def binding(self, given: Any) -> bytes:
        """Return where an input comes from, as a `Binding`.

        Raises:
            Misfit: If it says nothing of the kind.
            NotFoundError: If it names an artifact that does not exist.
        """
        if type(given) is dict:
            # What most inputs are.
            if len(given) == 2 and "step" in given and "output" in given:
                reference = self._reference(given["step"], given["output"])
                return _reference_start(len(reference)) + reference
            if len(given) == 1 and "value" in given:
                return self._values.binding(given["value"])
            form = next((key for key in given if key in FORMS), None)
            if form is not None:
                return self._binding_form(form, given)
            return self._binding_form("dict", {"dict": given})
        if type(given) in (list, tuple):
            form = type(given).__name__
            return self._binding_form(form, {form: given})
        raise Misfit(f"must be {_BINDING}, not {given!r}")

    def _binding_form(self, form: str, given: Mapping[str, Any]) -> bytes:
        wrong = unknown_key(given, _BINDING_KEYS[form])
        if wrong is not None:
            raise wrong
        content = given[form]
        match form:
            case "step":
                binding = self._alternatives(content, given)
            case "flow_input":
                binding = _flow_input(text_of(content))
            case "value":
                binding = self._values.binding(content)
            case "dict":
                entries = self._entries(content)
                binding = _map_start(len(entries)) + entries
            case _:
                items = self._items(content)
                binding = (_list_start if form == "list" else _tuple_start)(len(items)) + items
        if "digest" in given:
            passed = Binding(digest=_digest(given["digest"]), canonical=bool(given.get("canonical", True)))
            binding += passed.SerializeToString()
        return binding

    def _alternatives(self, step: Any, given: Mapping[str, Any]) -> bytes:
        reference = self._reference(step, given.get("output", "output"))
        for one in listed(given.get("alternatives", [])):
            other = checked_dict(one, ("step", "output"))
            alternative = self._reference(other.get("step"), other.get("output", "output"))
            reference += _alternative_start(len(alternative)) + alternative
        return _reference_start(len(reference)) + reference

    def _items(self, items: Any) -> bytes:
        parts: list[bytes] = []
        for index, item in enumerate(listed(items)):
            try:
                binding = self.binding(item)
            except Misfit as misfit:
                raise misfit.inside(f"[{index}]") from None
            parts += (_item_start(len(binding)), binding)
        return b"".join(parts)

    def _entries(self, entries: Any) -> bytes:
        parts: list[bytes] = []
        pairs: Iterable[Any] = entries.items() if type(entries) is dict else listed(entries)
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise Misfit(f"must be an object, or a list of pairs [key, binding], not {pair!r}")
            key, item = pair
            entry = BindingEntry()
            if type(key) is str:
                entry.text = key
            else:
                self._values.fill(entry.encoded, key)
            try:
                entry.value.MergeFromString(self.binding(item))
            except Misfit as misfit:
                raise misfit.inside(f".{key}") from None
            parts.append(BindingMap(entries=[entry]).SerializeToString())
        return b"".join(parts)

    def _reference(self, step: Any, output: Any) -> bytes:
        number = self.numbers.get(step) if type(step) is str else None
        if number is None:
            number = self.number(step, "")
        if type(output) is not str:
            raise Misfit(f"must be the name of an output, not {output!r}", ".output")
        return _NUMBER_TAG + varint(number) + _referred_output(output)

    def number(self, step: Any, path: str) -> int:
        """Return the number of a step.

        Raises:
            Misfit: If no step before has this ID.
        """
        number = self.numbers.get(step) if isinstance(step, str) else None
        if number is None:
            raise Misfit(f"refers to step {step!r}; a step refers only to those before it, and none has this ID", path)
        return number


def _digest(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise Misfit(f"{value!r} is no digest in hexadecimal digits", ".digest") from None
