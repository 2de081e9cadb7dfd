"""Videos that name other files."""


def playlists(url: str) -> dict[str, str]:
    """Texts that FFmpeg may open as a video made of another file, by kind. (One kind would be
    waited for.)"""
    return {
        "ffconcat": f"ffconcat version 1.0\nfile {url}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{url}\n#EXT-X-ENDLIST\n",
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period>'
            "</MPD>"
        ),
    }
