"""What the Hub refuses in the metadata of a card."""

import re

import yaml

# https://github.com/huggingface/hub-docs, tasks that a model can name.
PIPELINE_TAGS = {
    "feature-extraction",
    "fill-mask",
    "sentence-similarity",
    "tabular-classification",
    "text-classification",
    "text-generation",
    "text-ranking",
}
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "other", "unknown", "openrail", "bsd-3-clause"}
REPO_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)


def find_errors(content):
    """Gives one message for each thing that is wrong with a README's metadata."""
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", content, flags=re.S)
    if found is None:
        return []
    try:
        metadata = yaml.safe_load(found.group(1))
    except yaml.YAMLError as error:
        return [f"not valid YAML: {error}"]
    errors = []
    if not isinstance(metadata, dict):
        return ["metadata must be a mapping"]
    for name in ("library_name", "license", "license_name", "pipeline_tag", "base_model_relation"):
        if name in metadata and not isinstance(metadata[name], str):
            errors.append(f'"{name}" must be a string')
    if metadata.get("pipeline_tag", "text-ranking") not in PIPELINE_TAGS:
        errors.append('"pipeline_tag" is not a known task')
    if metadata.get("license", "mit") not in LICENCES:
        errors.append('"license" is not a known one')
    for name in ("tags", "datasets", "base_model", "metrics", "language"):
        value = metadata.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            errors.append(f'"{name}" must be a list of strings')
        elif name in ("datasets", "base_model"):
            errors += [f'"{name}" with {item!r} is no id' for item in value if not REPO_ID.fullmatch(item)]
    return errors + list(_index_errors(metadata.get("model-index", [])))


def _index_errors(index):
    if not isinstance(index, list):
        yield '"model-index" must be a list'
        return
    for place, model in enumerate(index):
        if not isinstance(model.get("name"), str) or not model["name"]:
            yield f'"model-index[{place}].name" is required'
        for row, result in enumerate(model.get("results", [{}])):
            where = f"model-index[{place}].results[{row}]"
            if not isinstance(result.get("task", {}).get("type"), str):
                yield f'"{where}.task.type" is required'
            if not {"type", "name"} <= set(result.get("dataset", {})):
                yield f'"{where}.dataset.type" and "name" are required'
            elif not REPO_ID.fullmatch(result["dataset"]["type"]):
                yield f'"{where}.dataset.type" fails to match'
            for metric in result.get("metrics") or [{}]:
                if not isinstance(metric.get("type"), str) or "value" not in metric:
                    yield f'"{where}.metrics" need "type" and "value"'
