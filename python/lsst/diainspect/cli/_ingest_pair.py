"""``diainspect ingest-pair``: a science image and a template from FITS files into a repository."""

from __future__ import annotations

__all__ = ["ingest_pair_command"]

import click

from ._clear_errors import clear_errors


@click.command("ingest-pair")
@click.argument("repo", type=click.Path(file_okay=False))
@click.argument("science")
@click.argument("template")
@click.option("--science-psf", help="PSF of the science image; measured from its stars when omitted.")
@click.option("--template-psf", help="PSF of the template; measured from its stars when omitted.")
@click.option(
    "--science-noise",
    help="Standard deviation of each pixel of the science image; estimated when neither this nor a variance is given.",
)
@click.option("--template-noise", help="Standard deviation of each pixel of the template.")
@click.option("--science-variance", help="Variance of each pixel, in place of --science-noise.")
@click.option("--template-variance", help="Variance of each pixel, in place of --template-noise.")
@click.option("--mask", help="Mask of both images: pixels that are not zero are bad.")
@click.option("--science-mask", help="Mask of the science image, in place of --mask.")
@click.option("--template-mask", help="Mask of the template, in place of --mask.")
@click.option("--mask-plane", default="BAD", show_default=True, help="Plane for pixels that a mask marks.")
@click.option("--visit", type=int, default=1, show_default=True, help="Visit number to give the pair.")
@click.option("--detector", type=int, default=0, show_default=True, help="Detector number to give the pair.")
@click.option("--band", help="Band; the physical filter when omitted.")
@click.option("--physical-filter", help="Filter; FILTER of the science header, or the band, when omitted.")
@click.option("--date", help="Start of the exposure, ISO format, UTC; from the science header when omitted.")
@click.option("--exposure-time", type=float, help="Exposure time in s; from the science header when omitted.")
@click.option("--unit", help="Unit of the pixels (nJy, MJy/sr, ...), in place of the header's BUNIT.")
@click.option("--njy-per-unit", type=float, help="nJy per pixel unit, in place of BUNIT.")
@click.option("--zero-point", type=float, help="AB magnitude of one pixel unit, in place of BUNIT.")
@click.option("--template-njy-per-unit", type=float, help="The same for the template, where it differs.")
@click.option("--template-zero-point", type=float, help="The same for the template, where it differs.")
@click.option(
    "--psf-size",
    type=int,
    default=51,
    show_default=True,
    help="Side to which larger PSF images are cut, odd; the cost of subtraction grows with its square.",
)
@click.option(
    "--gain",
    help="Electrons per pixel unit, for the photon noise of sources; GAIN of the header when omitted. 'sky' takes the "
    "noise of the sky to be photon noise of a background that was not subtracted.",
)
@click.option("--template-gain", help="The same for the template, where it differs.")
@click.option("--saturation", type=float, help="Saturation level in pixel units; SATURATE when omitted.")
@click.option("--template-saturation", type=float, help="The same for the template, where it differs.")
@click.option(
    "--background/--no-background",
    default=None,
    help="Subtract the background, or leave it; subtracted where noise is estimated when omitted.",
)
@click.option(
    "--background-mesh",
    type=int,
    default=128,
    show_default=True,
    help="Side of the mesh in which background and noise are measured.",
)
@click.option(
    "--psf-order", type=int, help="Spatial order of measured PSFs; what the stars allow when omitted."
)
@click.option(
    "--min-stars", type=int, help="Fewest stars to measure a PSF from; three a spatial term when omitted."
)
@click.option(
    "--min-star-snr",
    type=float,
    default=30.0,
    show_default=True,
    help="Least signal-to-noise ratio of those stars.",
)
@click.option(
    "--warp",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Warp the template to the science image's pixel grid: where it is on another one, always, or never.",
)
@click.option("--run", default="DiaFits/input", show_default=True, help="RUN collection to write.")
def ingest_pair_command(
    repo: str,
    science: str,
    template: str,
    science_psf: str | None,
    template_psf: str | None,
    science_noise: str | None,
    template_noise: str | None,
    science_variance: str | None,
    template_variance: str | None,
    mask: str | None,
    science_mask: str | None,
    template_mask: str | None,
    mask_plane: str,
    visit: int,
    detector: int,
    band: str | None,
    physical_filter: str | None,
    date: str | None,
    exposure_time: float | None,
    unit: str | None,
    njy_per_unit: float | None,
    zero_point: float | None,
    template_njy_per_unit: float | None,
    template_zero_point: float | None,
    psf_size: int,
    gain: str | None,
    template_gain: str | None,
    saturation: float | None,
    template_saturation: float | None,
    background: bool | None,
    background_mesh: int,
    psf_order: int | None,
    min_stars: int | None,
    min_star_snr: float,
    warp: str,
    run: str,
) -> None:
    """Bring the FITS images SCIENCE and TEMPLATE into the butler repository REPO.

    The repository is created when missing. Every file may be compressed and may name an extension:
    image.fits[SCI]. Pixels are converted to nJy; each PSF is a square image of odd side in pixels of the images.
    Noise, background and PSFs that are not given are measured; a template on another pixel grid is warped.
    """
    from lsst.diainspect.ingest import PairSettings, ingest_pair

    with clear_errors():
        settings = PairSettings(
            science=science,
            template=template,
            science_psf=science_psf,
            template_psf=template_psf,
            science_noise=science_noise,
            template_noise=template_noise,
            science_variance=science_variance,
            template_variance=template_variance,
            mask=mask,
            science_mask=science_mask,
            template_mask=template_mask,
            mask_plane=mask_plane,
            visit=visit,
            detector=detector,
            band=band,
            physical_filter=physical_filter,
            date=date,
            exposure_time=exposure_time,
            unit=unit,
            njy_per_unit=njy_per_unit,
            zero_point=zero_point,
            template_njy_per_unit=template_njy_per_unit,
            template_zero_point=template_zero_point,
            psf_size=psf_size,
            gain=gain,
            template_gain=template_gain,
            saturation=saturation,
            template_saturation=template_saturation,
            background=background,
            background_mesh=background_mesh,
            psf_order=psf_order,
            min_stars=min_stars,
            min_star_snr=min_star_snr,
            warp=warp,
        )
        refs = ingest_pair(
            repo, settings.science_source, settings.template_source, run=run, **settings.options
        )
    click.echo(f"{len(refs)} datasets in collection {run} of {repo}")
