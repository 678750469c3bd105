"""``diainspect ingest-pair``: a science image and a template from FITS files into a repository."""

from __future__ import annotations

__all__ = ["ingest_pair_command"]

import click

from ._clear_errors import clear_errors


@click.command("ingest-pair")
@click.argument("repo", type=click.Path(file_okay=False))
@click.argument("science")
@click.argument("template")
@click.option("--science-psf", required=True, help="PSF of the science image.")
@click.option("--template-psf", required=True, help="PSF of the template.")
@click.option("--science-noise", help="Standard deviation of each pixel of the science image.")
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
@click.option("--run", default="DiaFits/input", show_default=True, help="RUN collection to write.")
def ingest_pair_command(
    repo: str,
    science: str,
    template: str,
    science_psf: str,
    template_psf: str,
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
    run: str,
) -> None:
    """Bring the FITS images SCIENCE and TEMPLATE, on one pixel grid, into the butler repository REPO.

    The repository is created when missing. Every file may be compressed and may name an extension:
    image.fits[SCI]. Pixels are converted to nJy; each PSF is a square image of odd side in pixels of the images.
    """
    from lsst.diainspect.ingest import FitsImageSource, PixelUnit, ingest_pair

    with clear_errors():
        pixel_unit = PixelUnit(unit=unit, njy_per_unit=njy_per_unit, zero_point=zero_point)
        template_unit = pixel_unit
        if template_njy_per_unit is not None or template_zero_point is not None:
            template_unit = PixelUnit(njy_per_unit=template_njy_per_unit, zero_point=template_zero_point)
        refs = ingest_pair(
            repo,
            FitsImageSource(
                science,
                science_psf,
                noise=science_noise,
                variance=science_variance,
                mask=science_mask if science_mask is not None else mask,
                pixel_unit=pixel_unit,
            ),
            FitsImageSource(
                template,
                template_psf,
                noise=template_noise,
                variance=template_variance,
                mask=template_mask if template_mask is not None else mask,
                pixel_unit=template_unit,
            ),
            run=run,
            visit=visit,
            detector=detector,
            band=band,
            physical_filter=physical_filter,
            date=date,
            exposure_time=exposure_time,
            psf_size=psf_size,
            mask_plane=mask_plane,
        )
    click.echo(f"{len(refs)} datasets in collection {run} of {repo}")
