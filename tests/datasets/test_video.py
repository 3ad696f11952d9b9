"""Videos: every frame in its place, exact where it must be, and close where it may be lossy."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from alula.core.errors import ConfigError, DatasetError
from alula.datasets.video import LOSSLESS, VideoSettings, VideoWriter, decode_video, encode_video, psnr, read_video

H264 = VideoSettings("libx264", crf=23, gop=2)


def scene(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A bright square that moves over a smooth background, one column a frame."""
    rows, columns = np.mgrid[:height, :width]
    background = np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)
    frames = np.repeat(background[None], count, axis=0)
    for index, frame in enumerate(frames):
        left = index % (width - 16)
        frame[16:32, left : left + 16] = (240, 200, 40)
    return frames


@pytest.mark.parametrize(
    ("settings", "least_db"),
    [(VideoSettings(), 30.0), (H264, 30.0), (LOSSLESS, float("inf"))],
    ids=["av1", "h264", "x"],
)
@pytest.mark.parametrize("count", [1, 2, 31])
def test_every_frame_comes_back_in_order(tmp_path: Path, settings: VideoSettings, least_db: float, count: int) -> None:
    frames = scene(count)
    assert encode_video(iter(frames), tmp_path / "a.mp4", 30.0, settings) == count
    decoded = np.stack(list(decode_video(tmp_path / "a.mp4")))
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    # Frame by frame: a shift by one frame would leave the average high.
    for wanted, got in zip(frames, decoded, strict=True):
        assert psnr(wanted, got) >= least_db
    others = [psnr(frames[0], later) for later in decoded[1:]]
    assert all(psnr(frames[0], decoded[0]) > other for other in others)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64), (33, 127)])
def test_lossless_is_exact_for_noise_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, *size, 3), dtype=np.uint8)
    encode_video(frames, tmp_path / "noise.mp4", 12.5, LOSSLESS)
    out = np.empty_like(frames)
    read_video(tmp_path / "noise.mp4", out)
    assert np.array_equal(out, frames)
    assert LOSSLESS.lossless
    assert not VideoSettings("libx264rgb", crf=1).lossless


@pytest.mark.parametrize("settings", [LOSSLESS, H264, VideoSettings()], ids=["exact", "h264", "av1"])
@pytest.mark.parametrize("rate", [5.0, 12.5, 29.97, 50.0, 240.0])
def test_decoding_may_start_at_any_frame(tmp_path: Path, settings: VideoSettings, rate: float) -> None:
    path = tmp_path / "a.mp4"
    encode_video(scene(23), path, rate, settings)
    whole = list(decode_video(path))
    for start in range(23):
        out = np.empty((min(3, 23 - start), *whole[0].shape), np.uint8)
        read_video(path, out, start)
        assert np.array_equal(out, whole[start : start + 3])
    assert list(decode_video(path, 23)) == []


@pytest.mark.parametrize("rate", [5.0, 29.97, 30.0])
def test_frame_times_are_the_rate(tmp_path: Path, rate: float) -> None:
    """Other readers find a frame by its time, within 0.1 ms."""
    encode_video(scene(40), tmp_path / "a.mp4", rate, VideoSettings())
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([index / rate for index in range(40)], abs=1e-4)


def test_key_frames_are_as_close_as_asked(tmp_path: Path) -> None:
    encode_video(scene(12), tmp_path / "a.mp4", 30, VideoSettings(gop=3))
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert [index for index, key in enumerate(keys) if key] == [0, 3, 6, 9]


def test_a_lower_crf_keeps_more(tmp_path: Path) -> None:
    quality, size = [], []
    for crf in (10, 30, 50):
        path = tmp_path / f"{crf}.mp4"
        encode_video(scene(8), path, 30, VideoSettings(crf=crf))
        quality.append(psnr(scene(8), np.stack(list(decode_video(path)))))
        size.append(path.stat().st_size)
    assert quality == sorted(quality, reverse=True)
    assert size == sorted(size, reverse=True)


def test_psnr_is_that_of_its_definition() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr(black, black) == float("inf")
    assert psnr(black, white) == psnr(white, black) == 0.0
    assert psnr(black, np.full_like(black, 1)) == pytest.approx(48.1308, abs=1e-4)  # 20 log10 255


@pytest.mark.parametrize("settings", [VideoSettings(), H264], ids=["av1", "h264"])
def test_a_size_that_a_codec_cannot_hold_is_named(tmp_path: Path, settings: VideoSettings) -> None:
    with pytest.raises(DatasetError, match=r"3 x 1 pixels at 30 Hz.*libx264rgb takes any"):
        encode_video(np.zeros((1, 1, 3, 3), np.uint8), tmp_path / "a.mp4", 30, settings)
    encode_video(np.zeros((1, 1, 3, 3), np.uint8), tmp_path / "a.mp4", 30, LOSSLESS)


def test_a_rate_that_a_codec_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1000 Hz.*at most 240 Hz"):
        encode_video(scene(2), tmp_path / "a.mp4", 1000, VideoSettings())
    encode_video(scene(2), tmp_path / "a.mp4", 1000, LOSSLESS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codec": "libx265"}, "libx264"),
        ({"crf": 64}, "0 .best. to 63"),
        ({"crf": -1}, "crf is -1"),
        ({"gop": 0}, "gop"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VideoSettings(**wrong)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    encode_video(scene(30), path, 30, LOSSLESS)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        list(decode_video(path))
    path.write_text("no video")
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        list(decode_video(path))
    with pytest.raises(DatasetError, match=r"absent\.mp4"):
        list(decode_video(tmp_path / "absent.mp4"))


def test_too_few_frames_or_another_size_is_an_error(tmp_path: Path) -> None:
    encode_video(scene(4), tmp_path / "a.mp4", 30, LOSSLESS)
    with pytest.raises(DatasetError, match="ends after 4 frames, 6 are needed"):
        read_video(tmp_path / "a.mp4", np.empty((4, 64, 96, 3), np.uint8), start=2)
    with pytest.raises(DatasetError, match=r"shape \(64, 96, 3\), expected \(8, 8, 3\)"):
        read_video(tmp_path / "a.mp4", np.empty((4, 8, 8, 3), np.uint8))


def test_an_unfinished_video_is_no_video(tmp_path: Path) -> None:
    """So that a killed recorder cannot leave a video that seems complete."""
    writer = VideoWriter(tmp_path / "a.mp4", 30, LOSSLESS)
    for frame in scene(4):
        writer.add(frame)
    with pytest.raises(DatasetError):
        list(decode_video(tmp_path / "a.mp4"))
    writer.close()
    assert len(list(decode_video(tmp_path / "a.mp4"))) == writer.num_frames == 4


def test_a_folder_that_is_not_there_is_no_fault_of_the_codec(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent/a\.mp4"):
        encode_video(scene(1), tmp_path / "absent/a.mp4", 30, VideoSettings())


def test_rates_that_are_no_whole_number_stay(tmp_path: Path) -> None:
    encode_video(scene(4), tmp_path / "a.mp4", 30000 / 1001, VideoSettings())
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
