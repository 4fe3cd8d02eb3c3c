"""Pictures as requests name them: what is read, what is refused and with which status, before it can do harm."""

import asyncio
import base64
import io
import os
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
import pytest
from hostile import chunk, picture, png, rle_bitmap, tiff_of_large_tiles
from local_site import Site, serve
from PIL import Image
from s3 import BUCKET, serving_s3

from captioning.serving.addresses import Rules
from captioning.serving.body import GivenPicture
from captioning.serving.decoding import Decoders
from captioning.serving.pictures import Pictures, Taken
from captioning.serving.problems import Problem
from captioning.serving.setting_values import check_prefix
from captioning.serving.settings import ServiceSettings

PUBLIC = "127.0.0.5"
"""Stands for the public internet in these tests: the setting allowed_networks names it."""
MAX_BYTES = 200_000


def given(**stated: Any) -> GivenPicture:
    """Return a picture of a request, named `it` unless told otherwise."""
    return GivenPicture(**{"name": "it", **stated})


def take(
    *stated: GivenPicture, keep_files: bool = False, **settings: object
) -> list[Taken[tuple[int, ...]] | Problem]:
    """Return the shape of each picture, or its refusal."""
    values = {"decode_seconds": 60.0, "decoders": 1, "max_bytes": MAX_BYTES, **settings}

    async def run() -> list[Taken[tuple[int, ...]] | Problem]:
        async with Pictures(ServiceSettings.model_validate(values)) as pictures:
            return await pictures.take(stated, lambda pixels: pixels.shape, keep_files=keep_files)

    return asyncio.run(run())


def refusals(found: list[Taken[tuple[int, ...]] | Problem]) -> list[tuple[int, str]]:
    return [(own.status, own.detail) if isinstance(own, Problem) else (200, str(own.seen)) for own in found]


# --- uploaded


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_what_people_have_pictures_in_is_read(form: str) -> None:
    (found,) = take(given(encoded=picture(form)))
    assert isinstance(found, Taken) and found.seen == (30, 40, 3) and found.encoded is None


def test_base64_may_have_line_ends_and_what_browsers_write_before_it() -> None:
    text = base64.encodebytes(picture()).decode()
    assert "\n" in text
    found = take(given(base64=text), given(base64=f"data:image/png;base64,{text}"), given(base64="no!"))
    assert [own.seen for own in found[:2] if isinstance(own, Taken)] == [(30, 40, 3)] * 2
    assert refusals(found)[2] == (
        422,
        "the text is not base64; send the bytes of an image file, encoded in base64",
    )


def test_files_are_kept_only_where_asked_for_and_only_so_many_bytes() -> None:
    small = picture()
    bounds = {"max_bytes": 2 * len(small), "max_request_bytes": 2 * len(small)}
    found = take(*[given(encoded=small)] * 3, keep_files=True, **bounds)
    assert [own.encoded for own in found if isinstance(own, Taken)] == [small, small]
    assert refusals(found)[2][0] == 413


def test_too_many_bytes_are_refused_before_they_are_decoded() -> None:
    found = take(given(name="big.png", encoded=bytes(MAX_BYTES + 1)))
    assert refusals(found) == [(413, "'big.png' has more than 200,000 bytes; send a smaller picture")]


# --- decoding


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        (png(30_000, 30_000), "Image size"),
        (png(9_000, 9_000), "9000 x 9000 pixels are more than 50,000,000"),
        (
            picture("GIF").replace(struct.pack("<HH", 40, 30), struct.pack("<HH", 65_000, 65_000)),
            "Image size",
        ),
        (tiff_of_large_tiles(8_000), "stored in tiles of 8000 x 8000 pixels"),
        (picture("JPEG") + b"\xff\xda" * 300, "stored in 301 passes, more than 200"),
    ],
    ids=["flood", "large", "gif", "tiff", "jpeg"],
)
def test_a_flood_of_pixels_is_refused_before_it_is_decoded(encoded: bytes, why: str) -> None:
    before = time.process_time()
    ((status, detail),) = refusals(take(given(encoded=encoded)))
    assert (status, why in detail) == (413, True), detail
    assert time.process_time() - before < 5


def test_formats_that_start_programs_or_are_obscure_are_no_pictures_here() -> None:
    files = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        b"%PDF-1.7\n",
        b"\x0c\0\0\0\x12\xaf\x01\0" + bytes(128),
        picture("PPM"),
        picture("ICO"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a",
        picture("JPEG")[:200],
        b"",
    ]
    found = refusals(take(*(given(encoded=own) for own in files)))
    assert [status for status, _ in found] == [415] * len(files)
    assert found[0][1] == (
        "not a picture: it begins with b'%!PS-Adobe-3.0 E'; send a JPEG, PNG, GIF, WebP, BMP, TIFF or AVIF file"
    )
    assert found[-1][1].startswith("the file is empty; send a JPEG")


def test_text_and_profiles_that_unpack_to_much_are_not_unpacked() -> None:
    much = zlib.compress(bytes(64 * 2**20), 9)
    row = zlib.compress(bytes(4))
    text, profile = chunk(b"zTXt", b"a\0\0" + much), chunk(b"iCCP", b"a\0\0" + much)
    found = take(
        *(given(encoded=png(1, 1, own, chunk(b"IDAT", row))) for own in (text, profile)), max_bytes=1_000_000
    )
    assert all(own.status == 415 if isinstance(own, Problem) else own.seen == (1, 1, 3) for own in found)


def test_a_picture_that_takes_too_long_is_given_up_and_the_next_one_is_decoded() -> None:
    async def run() -> None:
        async with Decoders(num_processes=1, max_pixels=50_000_000, max_seconds=30.0) as decoders:
            await decoders.decode(picture())
            decoders._max_seconds = 0.5
            with pytest.raises(Problem, match=r"was not decoded after 0\.5 seconds") as refused:
                await decoders.decode(rle_bitmap(7_000, 5_000_000))
            assert refused.value.status == 413
            decoders._max_seconds = 60.0
            assert (await decoders.decode(picture())).shape == (30, 40, 3)

    asyncio.run(run())


def test_a_decoder_that_crashes_costs_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "secret")

    async def run() -> None:
        async with Decoders(num_processes=1, max_pixels=1_000, max_seconds=30.0) as decoders:
            await decoders.decode(picture(size=(9, 9)))
            (child,) = [
                own for own in psutil.Process().children() if "decoding_process" in str(own.cmdline())
            ]
            assert "SECRET_KEY" not in child.environ()
            child.suspend()  # it has the picture and does not answer yet
            answer = asyncio.create_task(decoders.decode(picture(size=(9, 9))))
            await asyncio.sleep(0.1)
            child.kill()
            with pytest.raises(Problem, match="its decoder ended"):
                await answer
            assert (await decoders.decode(picture(size=(9, 9)))).shape == (9, 9, 3)
        assert not [own for own in psutil.Process().children() if "decoding_process" in str(own.cmdline())]

    asyncio.run(run())


def test_a_decoder_that_was_killed_while_it_waited_costs_no_picture() -> None:
    async def run() -> list[tuple[int, ...]]:
        async with Decoders(num_processes=1, max_pixels=10_000, max_seconds=60.0) as decoders:
            shapes = []
            for _ in range(2):
                shapes.append((await decoders.decode(picture())).shape)
                for child in psutil.Process().children():
                    if "decoding_process" in str(child.cmdline()):
                        child.kill()
                        child.wait()
            return shapes

    assert asyncio.run(run()) == [(30, 40, 3)] * 2


def test_a_request_that_is_given_up_leaves_no_decoder_out_of_step() -> None:
    async def run() -> None:
        async with Decoders(num_processes=1, max_pixels=50_000_000, max_seconds=60.0) as decoders:
            await decoders.decode(picture())
            given_up = asyncio.create_task(decoders.decode(picture(size=(6_000, 6_000))))
            await asyncio.sleep(0.01)
            given_up.cancel()
            assert (await decoders.decode(picture(size=(8, 9)))).shape == (9, 8, 3)

    asyncio.run(run())


def test_decoded_pixels_are_those_of_training() -> None:
    from captioning.images import decode

    noise = np.random.default_rng(0).integers(0, 255, (31, 47, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG", quality=90)

    async def run() -> np.ndarray:
        async with Decoders(num_processes=1, max_pixels=10_000, max_seconds=60.0) as decoders:
            return await decoders.decode(encoded.getvalue())

    assert np.array_equal(asyncio.run(run()), decode(encoded.getvalue()))


# --- addresses


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve(PUBLIC) as found:
        found.files["a.png"] = picture()
        yield found


@pytest.fixture(scope="module")
def private() -> Iterator[Site]:
    with serve() as found:
        found.files["a.png"] = picture()
        yield found


def port(site: Site) -> int:
    return int(site.url.rpartition(":")[2])


def fetch(*urls: str, sites: tuple[Site, ...], **settings: object) -> list[tuple[int, str]]:
    allowed = {
        "allowed_networks": (PUBLIC,),
        "fetch_ports": (80, 443, *map(port, sites)),
        "fetch_seconds": 10.0,
    }
    return refusals(take(*(given(url=url) for url in urls), **{**allowed, **settings}))


def test_a_picture_behind_an_address_is_read_and_nothing_of_ours_is_sent_there(site: Site) -> None:
    site.headers.clear()
    redirected = f"{site.url}/to/{quote(f'{site.url}/file/a.png', safe='')}"
    found = fetch(f"{site.url}/file/a.png", redirected, sites=(site,))
    assert found == [(200, "(30, 40, 3)")] * 2
    for sent in site.headers:
        assert sent.keys() == {"Host", "User-Agent", "Accept", "Accept-Encoding", "CDN-Loop"}


def test_an_address_of_another_network_is_not_connected_to_however_it_is_written(private: Site) -> None:
    end = f":{port(private)}/file/a.png"
    hosts = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
        "127.0.0.2",
        "169.254.169.254",
        "10.0.0.1",
        "[fe80::1]",
        "[fd00::1]",
    ]
    found = fetch(*(f"http://{host}{end}" for host in hosts), sites=(private,))
    assert [status for status, _ in found] == [403] * len(hosts)
    assert found[0][1] == (
        f"'http://127.0.0.1{end}' does not lead to a public address of the internet; send the picture itself"
    )
    odd = ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "0x7f000001"]
    assert {status for status, _ in fetch(*(f"http://{own}{end}" for own in odd), sites=(private,))} <= {
        403,
        422,
    }
    assert not private.requests


def test_a_redirect_leads_to_no_other_network_scheme_port_or_login(site: Site, private: Site) -> None:
    goals = [
        f"{private.url}/file/a.png",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/",
        f"http://{PUBLIC}:22/",
        f"http://user:pass@{PUBLIC}/",
        "gopher://127.0.0.1/",
        "//127.0.0.1/",
        "",
    ]
    private.requests.clear()
    found = fetch(*(f"{site.url}/to/{quote(goal, safe='')}" for goal in goals), sites=(site, private))
    assert [status for status, _ in found] == [403] * 7 + [424]
    assert not private.requests


def test_a_name_is_judged_by_the_address_that_is_connected_to(
    site: Site, private: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to another address each time; the second time, to a private one."""
    asked: list[str] = []
    real = __import__("socket").getaddrinfo

    def rebinding(host: str, *arguments: object, **options: object) -> object:
        if host != "rebinding.example.com":
            return real(host, *arguments, **options)
        asked.append(host)
        return real(PUBLIC if len(asked) == 1 else "127.0.0.1", *arguments, **options)

    monkeypatch.setattr("socket.getaddrinfo", rebinding)
    private.requests.clear()
    first, second = f"rebinding.example.com:{port(site)}", f"rebinding.example.com:{port(private)}"
    redirected = f"http://{first}/to/{quote(f'http://{second}/file/a.png', safe='')}"
    ((status, _),) = fetch(redirected, sites=(site, private))
    assert (status, len(asked)) == (403, 2)
    assert not private.requests


def test_what_no_server_may_be_asked_is_refused_at_once(site: Site) -> None:
    refused = {
        "file:///etc/passwd": 403,
        "ftp://example.com/a.jpg": 403,
        "gopher://example.com/": 403,
        "data://image/png": 403,
        "jar:file:///a": 422,
        "photo.jpg": 422,
        "../../etc/passwd": 422,
        "": 422,
        "http://": 422,
        "http:///a.jpg": 422,
        "http://example.com:99999/": 422,
        "http://user:secret@example.com/a.jpg": 403,
        "http://good.example.com\\@127.0.0.1/": 422,
        f"http://{PUBLIC}:22/": 403,
        "http://example.com/\r\nHost: evil": 422,
        "http://[::1": 422,
        "s3://bucket/photo.jpg": 403,
    }
    found = fetch(*refused, sites=(site,))
    assert dict(zip(refused, [status for status, _ in found], strict=True)) == refused
    secret = dict(zip(refused, found, strict=True))["http://user:secret@example.com/a.jpg"]
    assert "take them out" in secret[1]


def test_an_address_that_answers_badly_or_never_is_the_pictures_fault_alone(site: Site) -> None:
    kinds = {
        "gone/a": 424,
        "busy/a": 424,
        "html/a": 415,
        "page/a": 415,
        "ok/a": 415,
        "endless/a": 413,
        "long/99999999": 413,
        "drip/a": 424,
        "silent/a": 424,
        "short/a": 424,
        "loop/a": 424,
        "reset/a": 424,
        "dripping_head/a": 424,
    }
    began = time.monotonic()
    found = fetch(
        *(f"{site.url}/{own}" for own in kinds), f"{site.url}/file/a.png", sites=(site,), decoders=4
    )
    assert dict(zip(kinds, [status for status, _ in found], strict=False)) == kinds
    assert found[-1] == (200, "(30, 40, 3)")
    assert time.monotonic() - began < 60
    assert found[0][1] == (f"'{site.url}/gone/a' answered 404; check the address, or send the picture itself")


def test_addresses_can_be_switched_off_but_for_the_prefixes_that_are_allowed(site: Site) -> None:
    signed = f"{site.url}/file/a.png?sig=a%2Fb%3D&se=2026"
    found = fetch(
        f"{site.url}/file/a.png",
        f"{site.url}/gone/../file/a.png",
        f"{site.url}/file%2F..%2Fok/a.png",
        f"http://{PUBLIC}.nip.io/file/",
        sites=(site,),
        fetch_urls=False,
        storage_prefixes=(f"{site.url}/file/",),
    )
    assert [status for status, _ in found] == [200, 403, 403, 403]
    ((status, detail),) = fetch(f"{site.url}/gone/a.png?sig=secret", sites=(site,), fetch_urls=False)
    assert status == 403 and "secret" not in detail
    assert fetch(signed, sites=(site,), fetch_urls=False, storage_prefixes=(f"{site.url}/file/",))[0][0] in {
        200,
        424,
    }


# --- storage


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/allowed/../other/a.png",
        "s3://bucket/allowed/%2e%2e/other/a.png",
        "s3://bucket/allowed/%252e%252e/other/a.png",
        "s3://bucket/allowed/..%2fother/a.png",
        "s3://bucket/allowed//a.png",
        "s3://bucket/allowed/./a.png",
        "s3://bucket/allowed\\..\\other/a.png",
        "s3://bucket/allowed/",
        "s3://bucket/allowed",
        "s3://bucket/allowedother/a.png",
        "s3://bucket/Allowed/a.png",
        "s3://Bucket/allowed/a.png",
        "s3://bucket/allowed/a.png\0.jpg",
        "s3://bucket/allowed/a::file:///etc/passwd",
        "s3://bucket/allowed/a.png?versionId=1",
        "s3://bucket/allowed/a.png#b",
        "s3://user@bucket/allowed/a.png",
        "s3://other/allowed/a.png",
        "s3:///bucket/allowed/a.png",
        "gs://bucket/allowed/a.png",
        "az://bucket/allowed/a.png",
    ],
)
def test_no_way_of_writing_an_address_leads_out_of_the_prefix(address: str) -> None:
    rules = Rules(public=True, networks=(), ports=(443,), prefixes=("s3://bucket/allowed/",))
    assert rules.storage("S3://bucket/allowed/deep/a b+ä.png") == ("s3", "bucket/allowed/deep/a b+ä.png")
    with pytest.raises(Problem, match="is not an address that this service may read") as refused:
        rules.storage(address)
    assert refused.value.status == 403


def test_a_prefix_names_a_bucket_and_stands_for_a_folder() -> None:
    assert check_prefix("s3://bucket/pictures") == "s3://bucket/pictures/"
    for wrong in ("file:///data/", "s3://", "bucket/pictures", "s3://bucket/../other", "s3://b/?x"):
        with pytest.raises(ValueError, match="is no storage prefix: expected SCHEME://BUCKET/FOLDER/"):
            check_prefix(wrong)


def test_pictures_come_from_the_storage_that_is_allowed_and_from_no_other() -> None:
    import boto3

    with serving_s3() as address:
        store = boto3.client("s3", endpoint_url=address)
        files = {
            "in/a.png": picture(),
            "out/a.png": picture(),
            "in/big": bytes(MAX_BYTES + 1),
            "in/empty": b"",
        }
        for name, content in files.items():
            store.put_object(Bucket=BUCKET, Key=name, Body=content)
        names = ["in/a.png", "out/a.png", "in/big", "in/empty", "in/absent.png", "in/../out/a.png"]
        found = refusals(
            take(
                *(given(url=f"s3://{BUCKET}/{own}") for own in names),
                storage_prefixes=(f"s3://{BUCKET}/in/",),
                fetch_seconds=60.0,
            )
        )
    assert [status for status, _ in found] == [200, 403, 413, 415, 424, 403]
    assert found[4][1] == (
        f"'s3://{BUCKET}/in/absent.png' does not exist, or may not be read; check the address, or send the "
        "picture itself"
    )


def test_storage_that_does_not_answer_says_nothing_of_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    found = take(given(url="s3://bucket/a/b.png"), storage_prefixes=("s3://bucket/a/",), fetch_seconds=3.0)
    ((status, detail),) = refusals(found)
    assert status == 424 and "secret" not in detail and "somebody" not in detail
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in detail
