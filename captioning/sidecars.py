"""A caption -> the XMP sidecar of its picture, which catalogues of photographs and screen readers' publishers read."""

from pathlib import Path
from xml.etree import ElementTree

from captioning.outputs import whole_file

NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
}
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
DESCRIPTIONS = ("dc:description", "Iptc4xmpCore:AltTextAccessibility")
WRITER = "photoshop:CaptionWriter"


def of(picture: Path) -> Path:
    """Return where the XMP sidecar of a picture lies: `dog.jpg.xmp`, which keeps dog.jpg and dog.png apart."""
    return picture.with_name(picture.name + ".xmp")


def is_described(picture: Path) -> bool:
    """Return whether the picture's sidecar, if it has one, has a description or an alternative text already."""
    try:
        description = _description(_parse(of(picture)))
    except (OSError, ValueError):  # `write` says why
        return False
    return any(
        _name(name) in description.attrib or description.find(_name(name)) is not None
        for name in DESCRIPTIONS
    )


def write(picture: Path, text: str, *, writer: str) -> None:
    """Write a caption as description and as alternative text (IPTC Photo Metadata 2021.1); the rest stays.

    Raises:
        ValueError: the file that is there is no XMP.
    """
    sidecar = of(picture)
    for prefix, address in NAMESPACES.items():
        ElementTree.register_namespace(prefix, address)
    if sidecar.exists():
        root = _parse(sidecar)
    else:
        root = ElementTree.Element(_name("x:xmpmeta"))
        ElementTree.SubElement(
            ElementTree.SubElement(root, _name("rdf:RDF")),
            _name("rdf:Description"),
            {_name("rdf:about"): ""},
        )
    description = _description(root)
    for name in (*DESCRIPTIONS, WRITER):
        description.attrib.pop(_name(name), None)
        if (before := description.find(_name(name))) is not None:
            description.remove(before)
        added = ElementTree.SubElement(description, _name(name))
        if name == WRITER:
            added.text = writer
        else:
            languages = ElementTree.SubElement(added, _name("rdf:Alt"))
            ElementTree.SubElement(languages, _name("rdf:li"), {LANGUAGE: "x-default"}).text = text
    ElementTree.indent(root)
    with whole_file(sidecar) as aside:
        aside.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
        if sidecar.exists():
            aside.chmod(sidecar.stat().st_mode)


def _parse(sidecar: Path) -> ElementTree.Element:
    try:
        encoded = sidecar.read_bytes()
        if b"<!DOCTYPE" in encoded:
            raise ValueError("it declares a document type")
        root = ElementTree.fromstring(encoded)
        if next(root.iter(_name("rdf:Description")), None) is None:
            raise ValueError("it has no rdf:Description")
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{sidecar} is no XMP: {error}; mend it, or move it away") from None
    return root


def _description(root: ElementTree.Element) -> ElementTree.Element:
    return next(root.iter(_name("rdf:Description")))


def _name(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{local}"
